/** Text files line by line, of any size; a line may have many megabytes. */
import { randomUUID } from "node:crypto";
import { createWriteStream } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { IoError, LlmeffError } from "@llmeff/native/errors";

/**
 * The lines of a file, without their ends, LF or CR LF. Only these end a line: Node's `readline` ends one at U+2028 and U+2029 too, which JSON
 * leaves as they are in a text.
 *
 * @throws {IoError} if it can't be read
 */
export async function* fileLines(path: string): AsyncGenerator<string> {
  const file = await openFile(path);
  /** Of a line that goes on in the next piece. */
  let open: string[] = [];
  try {
    for await (const piece of file.createReadStream({ encoding: "utf8", autoClose: false })) {
      const parts = (piece as string).split("\n");
      for (const part of parts.slice(0, -1)) {
        open.push(part);
        yield withoutReturn(open.join(""));
        open = [];
      }
      open.push(parts.at(-1)!);
    }
    const last = open.join("");
    if (last !== "") yield withoutReturn(last);
  } catch (cause) {
    throw unreadable(path, cause);
  } finally {
    await file.close();
  }
}

function withoutReturn(line: string): string {
  return line.endsWith("\r") ? line.slice(0, -1) : line;
}

/**
 * Writes a file of these lines as a whole or not at all: into a temporary file, flushed, then renamed. Lines may come from the file itself.
 *
 * @throws {IoError} if it can't be written; what the lines' source throws, as it is
 */
export async function replaceLines(path: string, lines: Iterable<string> | AsyncIterable<string>): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`;
  async function* ended() {
    for await (const line of lines) yield `${line}\n`;
  }
  try {
    await mkdir(dirname(path), { recursive: true });
    await pipeline(
      Readable.from(ended(), { highWaterMark: 1 }),
      createWriteStream(temporary, { flags: "wx", flush: true }),
    );
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    const { syscall, message } = cause as NodeJS.ErrnoException;
    if (cause instanceof LlmeffError || syscall === undefined) throw cause;
    throw new IoError(`[longcontext] cannot write ${path}: ${message}. Check the path, permissions and free space.`, {
      cause,
    });
  }
}

/** Whether the last line has its end, as every line that was written to the end has; true for an empty file. */
export async function endsInNewline(path: string): Promise<boolean> {
  const file = await openFile(path);
  try {
    const { size } = await file.stat();
    if (size === 0) return true;
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1);
    return buffer[0] === 0x0a;
  } finally {
    await file.close();
  }
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path);
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function unreadable(path: string, cause: unknown): IoError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const reason = code === "ENOENT" ? "there is no such file" : message;
  return new IoError(`[longcontext] cannot read ${path}: ${reason}. Check the path.`, { cause });
}
