/** Results in the terminal, and what they mean for the exit code. */
import { type Aggregate, tokensLabel } from "@llmeff/longcontext";
import { type Cell, renderTextTable, type Table } from "@llmeff/report";
import { exitCodes } from "../errors.js";
import { type Io, note, print } from "../io.js";
import type { Threshold } from "./options.js";

const percent = (share: number | null) => (share === null ? null : `${(100 * share).toFixed(1)} %`);

export function printResults(io: Io, { results }: Aggregate): void {
  const lengths = [...new Set(results.flatMap(({ byLength }) => byLength.map(({ length }) => length)))].sort(
    (a, b) => a - b,
  );
  const shown = lengths.length > 8 ? lengths.slice(-8) : lengths;
  const table: Table = {
    columns: [
      { header: "Model" },
      { header: "Task" },
      { header: "n" },
      { header: "Score", align: "right" },
      ...shown.map((length) => ({ header: tokensLabel(length), align: "right" as const })),
      { header: "Floor", align: "right" },
      { header: "No answer" },
    ],
    rows: results.map(({ model, task, samples, mean, byLength, floor, statuses }): Cell[] => [
      model,
      task,
      samples,
      percent(mean.mean),
      ...shown.map((length) => percent(byLength.find((at) => at.length === length)?.mean ?? null)),
      percent(floor),
      statuses.error + statuses.context_exceeded,
    ]),
  };
  print(io, renderTextTable(table, { width: io.stdout.columns ?? 120 }));
}

/** Which thresholds a model misses, in words. */
export function missedThresholds({ results }: Aggregate, thresholds: readonly Threshold[]): string[] {
  return thresholds.flatMap(({ task, score, length }) => {
    const own = results.filter((result) => result.task === task);
    if (own.length === 0) return [`there are no results of ${task}`];
    return own.flatMap(({ model, mean, byLength }) => {
      const found = length === undefined ? mean.mean : (byLength.find((at) => at.length === length)?.mean ?? null);
      const where = `${task}${length === undefined ? "" : ` at ${tokensLabel(length)}`}`;
      if (found === null) return [`${model} has no score of ${where}`];
      return found >= score ? [] : [`${model} has ${percent(found)} of ${where}, not ${percent(score)}`];
    });
  });
}

/** 1 for a missed threshold, 3 for results that are not complete. */
export function outcomeCode(io: Io, sums: Aggregate, thresholds: readonly Threshold[], complete: boolean): number {
  const missed = missedThresholds(sums, thresholds);
  for (const line of missed) note(io, `[eval] ${line}`);
  if (missed.length > 0) return exitCodes.failure;
  return complete && !sums.incomplete ? exitCodes.ok : exitCodes.incomplete;
}
