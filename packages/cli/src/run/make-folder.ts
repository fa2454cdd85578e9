import { existsSync } from "node:fs";
import { mkdir, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { IoError } from "@llmeff/native/errors";

/**
 * Makes a folder and what is missing above it. Node's own recursive `mkdir` never returns where the folder above is there
 * but says that there is no such place, as `/proc` does.
 *
 * @throws {IoError} if there can be no such folder
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await make(resolve(path));
  } catch (cause) {
    throw new IoError(
      `[llmeff] can't make the folder ${path}: ${(cause as Error).message}. Choose a place where files can be written.`,
      { cause },
    );
  }
}

async function make(path: string): Promise<void> {
  const above = dirname(path);
  if (!existsSync(above)) await make(above);
  try {
    await mkdir(path);
  } catch (error) {
    const found = await stat(path).catch(() => undefined);
    if (!found?.isDirectory()) throw error;
  }
}
