/** One process at a time: a lock file that outlives no process. */
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { link, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { LlmeffError } from "@llmeff/native/errors";

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

export interface Lock extends AsyncDisposable {
  release(): Promise<void>;
}

/**
 * Takes what a lock file stands for, by making that file. The lock of a process that is no longer there (it was killed) is taken over.
 *
 * @param path - the lock file; its folder is made if it is missing
 * @param what - what is locked, in messages
 * @param where - who locks it, in messages
 * @throws {LockedError} if another process holds it
 */
export async function takeLock(path: string, what: string, where: string): Promise<Lock> {
  await mkdir(dirname(path), { recursive: true });
  const own: Owner = { id: randomUUID(), pid: process.pid, host: hostname(), started: startOf(process.pid) };
  for (let tries = 0; !(await create(path, own)); tries++) {
    const holder = await ownerOf(path);
    if (holder !== undefined && (tries >= 3 || isAlive(holder))) {
      throw new LockedError(
        `[${where}] ${what} is in use by process ${holder.pid} on ${holder.host}. Wait for it or choose another; ` +
          `if that process does nothing of this kind, remove ${path}.`,
      );
    }
    await removeStale(path, holder);
  }
  const release = async () => {
    if ((await ownerOf(path))?.id === own.id) await rm(path, { force: true });
  };
  return { release, [Symbol.asyncDispose]: release };
}

async function create(path: string, owner: Owner): Promise<boolean> {
  // Written apart and linked, so that no other process ever sees a lock without content.
  const draft = `${path}.${owner.id}`;
  const file = await open(draft, "wx");
  try {
    await file.writeFile(JSON.stringify(owner));
  } finally {
    await file.close();
  }
  try {
    await link(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

async function ownerOf(path: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as Owner;
  } catch {
    return undefined;
  }
}

/** Of two processes that find the same stale lock one moves it away; the other, if it moved a new one, puts that back. */
async function removeStale(path: string, stale: Owner | undefined): Promise<void> {
  const aside = `${path}.${randomUUID()}.stale`;
  try {
    await rename(path, aside);
  } catch {
    return;
  }
  if ((await ownerOf(aside))?.id !== stale?.id) await link(aside, path).catch(() => {});
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
