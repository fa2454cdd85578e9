/** The folder of a study's results: an unfinished one goes on, a finished one makes way. */
import { existsSync } from "node:fs";
import { readdir, rename, rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { UsageError } from "../errors.js";
import { type Io, note } from "../io.js";
import { Ledger } from "./ledger.js";
import { type Outcome, outcomeSchema } from "./outcome.js";

const ledgerFile = "study.json";

/**
 * The ledger of the study in a folder. Results of another or a finished study are moved to `<folder>.previous`.
 *
 * @throws {UsageError} if the folder holds something that no study has written
 */
export async function openStudyFolder(io: Io, folder: string, identity: unknown): Promise<Ledger<Outcome>> {
  const path = join(folder, ledgerFile);
  const unfinished = await Ledger.unfinished<Outcome>(path, identity, outcomeSchema);
  if (unfinished !== undefined) {
    note(io, `going on with the study in ${relative(io.cwd, folder)}: finished runs are kept (${unfinished.size})`);
    return unfinished;
  }
  if (existsSync(folder)) await makeWay(io, folder);
  return Ledger.create<Outcome>(path, identity);
}

async function makeWay(io: Io, folder: string): Promise<void> {
  if ((await readdir(folder)).length === 0) return;
  const previous = `${folder}.previous`;
  for (const place of [folder, previous]) {
    if (existsSync(place) && !existsSync(join(place, ledgerFile))) {
      throw new UsageError(`[study] ${place} holds other files than a study's. Choose another folder with --out DIR.`);
    }
  }
  await rm(previous, { recursive: true, force: true });
  await rename(folder, previous);
  note(io, `the results of the study before are now in ${relative(io.cwd, previous)}`);
}
