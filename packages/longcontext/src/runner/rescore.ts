/** Scores anew what was answered, without asking anybody. */
import { join } from "node:path";
import { replaceLines } from "../file-lines.js";
import type { Sample } from "../sample.js";
import { promptSha256 } from "./identity.js";
import { lockFolder } from "./lock.js";
import type { ResultRecord } from "./result.js";
import { readResults, resultsFile } from "./results-file.js";
import type { Scorer } from "./run.js";

export interface RescoreSummary {
  /** Records with a new score. */
  scored: number;
  /** Of those, the ones whose score is another than before. */
  changed: number;
  /** Records whose sample is not in the set, or is another one there; they stay as they are. */
  unknown: number;
}

/**
 * Rewrites the results of a folder with the scores of `score`. Replies without an answer keep theirs.
 *
 * @throws {LockedError} if a run works in the folder
 */
export async function rescore(
  folder: string,
  samples: Iterable<Sample> | AsyncIterable<Sample>,
  score: Scorer,
): Promise<RescoreSummary> {
  await using _lock = await lockFolder(folder);
  const path = join(folder, resultsFile);
  const records: ResultRecord[] = [];
  const { header } = await readResults(path, (record) => records.push(record));
  const places = new Map<string, number[]>();
  for (const [i, { id, status }] of records.entries()) {
    if (status === "ok" || status === "truncated") places.set(id, [...(places.get(id) ?? []), i]);
  }
  const open = [...places.values()].reduce((sum, list) => sum + list.length, 0);
  const summary = { scored: 0, changed: 0 };
  for await (const sample of samples) {
    const own = places.get(sample.id) ?? [];
    const sha = own.length === 0 ? "" : promptSha256(sample.messages);
    for (const i of own) {
      const { score: before, metrics: _, extracted: __, floor: ___, ...record } = records[i]!;
      if (record.promptSha256 !== sha) continue;
      const { kind } = header.config.models[record.model] ?? {};
      const now = await score(sample, record.text, kind ?? "chat");
      records[i] = { ...record, ...now };
      summary.scored++;
      if (now.score !== before) summary.changed++;
    }
  }
  await replaceLines(
    path,
    [header, ...records].map((line) => JSON.stringify(line)),
  );
  return { ...summary, unknown: open - summary.scored };
}
