/** Text files line by line, of any size; a line may have many megabytes. */
import { type FileHandle, open } from "node:fs/promises";
import { createInterface } from "node:readline";
import { IoError } from "@llmeff/native/errors";

/**
 * The lines of a file, without their ends.
 *
 * @throws {IoError} if it can't be read
 */
export async function* fileLines(path: string): AsyncGenerator<string> {
  const file = await openFile(path);
  try {
    const input = file.createReadStream({ encoding: "utf8", autoClose: false });
    for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) yield line;
  } catch (cause) {
    throw unreadable(path, cause);
  } finally {
    await file.close();
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
