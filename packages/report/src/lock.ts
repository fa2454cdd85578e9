/** One process at a time: a lock file that outlives no process. */
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { link, lstat, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { FormatError, LlmeffError } from "@llmeff/native/errors";
import { ioError, isMissing } from "./files.js";

/** Another process works there. */
export class LockedError extends LlmeffError {
  constructor(message: string) {
    super("ERR_LOCKED", message);
  }
}

interface Owner {
  id: string;
  pid: number;
  host: string;
  /** Tells processes apart that got the same number one after the other; empty where the system doesn't say. */
  started: string;
}

/** What is there instead: `owner` is undefined for a file without content, which a crash may leave. */
interface Found {
  text: string;
  owner: Owner | undefined;
}

/** What `link` says on file systems without hard links. */
const WITHOUT_LINKS: readonly unknown[] = ["EPERM", "ENOTSUP", "ENOSYS"];

/** Milliseconds that a lock may be without content while it is being made, on such file systems. */
const MAKING = 300;

export interface Lock extends AsyncDisposable {
  release(): Promise<void>;
}

/**
 * Takes what a lock file stands for, by making that file. The lock of a process that is no longer there (it was killed) is taken over; anything else of
 * that name is left as it is.
 *
 * @param path - the lock file; its folder is made if it is missing
 * @param what - what is locked, in messages
 * @param where - who locks it, in messages
 * @throws {LockedError} if another process holds it
 * @throws {FormatError} if something that is no lock has that name
 */
export async function takeLock(path: string, what: string, where: string): Promise<Lock> {
  await mkdir(dirname(path), { recursive: true });
  const own: Owner = { id: randomUUID(), pid: process.pid, host: hostname(), started: startOf(process.pid) };
  for (let tries = 0; !(await create(path, own)); tries++) {
    const found = await find(path, what, where);
    if (found === undefined) continue;
    const { text, owner } = found;
    if (owner !== undefined && (tries >= 3 || isAlive(owner))) {
      throw new LockedError(
        `[${where}] ${what} is in use by process ${owner.pid} on ${owner.host}. Wait for it or choose another; ` +
          `if that process does nothing of this kind, remove ${path}.`,
      );
    }
    await removeStale(path, text);
  }
  const release = async () => {
    const text = await readFile(path, "utf8").catch(() => "");
    if (parseOwner(text)?.id === own.id) await rm(path, { force: true });
  };
  return { release, [Symbol.asyncDispose]: release };
}

async function create(path: string, owner: Owner): Promise<boolean> {
  // Written apart and linked, so that no other process ever sees a lock without content.
  const draft = `${path}.${owner.id}`;
  try {
    await writeFile(draft, JSON.stringify(owner), { flag: "wx" });
    return await place(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
}

/** Gives a file a second name, or copies it where it can't have two; false if the name is taken. */
async function place(file: string, path: string): Promise<boolean> {
  try {
    await link(file, path).catch(async (error: NodeJS.ErrnoException) => {
      if (!WITHOUT_LINKS.includes(error.code)) throw error;
      await writeFile(path, await readFile(file), { flag: "wx" });
    });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** The lock that is there, undefined if it is gone by now. */
async function find(path: string, what: string, where: string): Promise<Found | undefined> {
  const refuse = (came: string, cause?: unknown) =>
    new FormatError(`[${where}] ${path} is in the way: expected a lock of ${what}, came ${came}; move it.`, { cause });
  try {
    const there = await lstat(path);
    if (!there.isFile()) throw refuse(there.isDirectory() ? "a folder" : "no plain file");
    let text = await readFile(path, "utf8");
    if (text === "") {
      await delay(MAKING);
      text = await readFile(path, "utf8");
    }
    const owner = parseOwner(text);
    if (owner === undefined && text !== "")
      throw refuse(`a file that begins with ${JSON.stringify(text.slice(0, 40))}`);
    return { text, owner };
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error instanceof FormatError
      ? error
      : refuse(`a file that can't be read (${(error as Error).message})`, error);
  }
}

function parseOwner(text: string): Owner | undefined {
  try {
    const owner = JSON.parse(text) as Partial<Owner> | null;
    const isOwner =
      typeof owner?.id === "string" &&
      Number.isSafeInteger(owner.pid) &&
      owner.pid! > 0 &&
      typeof owner.host === "string";
    return isOwner ? (owner as Owner) : undefined;
  } catch {
    return undefined;
  }
}

/** Of two processes that find the same stale lock one moves it away; the other, if it moved a new one, puts that back. */
async function removeStale(path: string, stale: string): Promise<void> {
  const aside = `${path}.${randomUUID()}.stale`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (isMissing(error)) return;
    throw ioError("remove the stale lock", path, error);
  }
  if ((await readFile(aside, "utf8")) !== stale) await place(aside, path);
  await rm(aside, { force: true });
}

/** A process of another machine can't be asked for, so it counts as there. */
function isAlive({ pid, host, started }: Owner): boolean {
  if (host !== hostname()) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
  return started === startOf(pid);
}

/** Start time of a process in ticks since boot, where `/proc` tells it: field 22, the 20th behind the name in parentheses. */
function startOf(pid: number): string {
  const path = `/proc/${pid}/stat`;
  try {
    if (!existsSync(path)) return "";
    const stat = readFileSync(path, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
}
