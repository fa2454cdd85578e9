/**
 * Files that survive interruption: whole-file writes through a temporary file and a rename, and an append-only file
 * whose writes are queued in order.
 */
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { IoError } from "@llmeff/native/errors";

/** Wraps a system error with what was being done to which file. */
export function ioError(action: string, path: string, cause: unknown): IoError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new IoError(
    `[report] cannot ${action} ${path}: ${reason}. Check the path, its permissions and the free space.`,
    {
      cause,
    },
  );
}

/** True for the error that a missing file gives. */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

/**
 * Replaces `path` by `content` so that a reader sees the old file or the new one, never a part: temporary file beside
 * it, fsync, rename, fsync of the folder. Missing folders are made.
 *
 * @throws {IoError} if anything fails; the old file is then untouched and the temporary one removed
 */
export async function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  const target = resolve(path);
  const temporary = `${target}.${process.pid}.${Math.random().toString(36).slice(2, 10)}.tmp`;
  try {
    await mkdir(dirname(target), { recursive: true });
    const file = await open(temporary, "wx");
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, target);
    await syncFolder(dirname(target));
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    throw ioError("write", target, cause);
  }
}

/** Makes a rename durable; some systems (Windows) cannot open a folder, and there the rename is durable as it is. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  try {
    await handle?.sync().catch(() => {});
  } finally {
    await handle?.close();
  }
}

/**
 * An append-only file. `append` returns at once; what is waiting goes out in one write while the previous one is on
 * its way. The first failure is kept and thrown by every later call, so that a full disk cannot pass unseen.
 */
export class AppendFile {
  readonly path: string;
  readonly #handle: FileHandle;
  #waiting: Uint8Array[] = [];
  #draining: Promise<void> | undefined;
  #failure: IoError | undefined;
  #closed = false;

  private constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  /** Opens for appending, making the file and its folders if they are missing; `exclusive` refuses an existing file. */
  static async open(path: string, options: { exclusive?: boolean } = {}): Promise<AppendFile> {
    try {
      await mkdir(dirname(resolve(path)), { recursive: true });
      return new AppendFile(path, await open(path, options.exclusive ? "ax" : "a"));
    } catch (cause) {
      throw ioError("open", path, cause);
    }
  }

  append(bytes: Uint8Array): void {
    this.#check();
    this.#waiting.push(bytes);
    this.#draining ??= this.#drain();
  }

  /** Waits until everything appended so far is on the disk. */
  async flush(): Promise<void> {
    this.#check();
    await this.#draining;
    this.#check();
    try {
      await this.#handle.datasync();
    } catch (cause) {
      this.#failure = ioError("flush", this.path, cause);
    }
    this.#check();
  }

  /** Flushes and closes; closing twice is allowed. */
  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      await this.flush();
    } finally {
      this.#closed = true;
      await this.#handle.close();
    }
  }

  #check(): void {
    if (this.#failure) throw this.#failure;
    if (this.#closed) throw new IoError(`[report] ${this.path} is closed. Open it again to append.`);
  }

  async #drain(): Promise<void> {
    // Leaves the caller's turn first, so that a burst of appends becomes one write.
    await Promise.resolve();
    try {
      while (this.#waiting.length > 0) {
        const batch = Buffer.concat(this.#waiting);
        this.#waiting = [];
        await this.#handle.appendFile(batch);
      }
    } catch (cause) {
      this.#failure = ioError("append to", this.path, cause);
      this.#waiting = [];
    } finally {
      this.#draining = undefined;
    }
  }
}
