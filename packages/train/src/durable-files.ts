/** The file operations that checkpoints are made of. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { FileSummary } from "./checkpoint-state.js";

/** Size and SHA-256, read in pieces so that large files don't hold up the event loop. */
export async function summarize(path: string): Promise<FileSummary> {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) {
    bytes += (piece as Buffer).length;
    hash.update(piece as Buffer);
  }
  return { bytes, sha256: hash.digest("hex") };
}

/** The system's code of an error, such as ENOENT. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && "syscall" in error && "code" in error ? String(error.code) : undefined;
}
