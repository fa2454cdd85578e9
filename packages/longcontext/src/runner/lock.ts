/** One run at a time in a folder. */
import { join } from "node:path";
import { type Lock, takeLock } from "@llmeff/report";

/** @throws {LockedError} of `@llmeff/report` if another process works in the folder */
export function lockFolder(folder: string): Promise<Lock> {
  return takeLock(join(folder, "run.lock"), folder, "run");
}
