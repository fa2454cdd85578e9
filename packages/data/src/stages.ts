/** One source of batches after another, such as selected sequences first and the ordinary stream then. */
import { OptionError } from "@llmeff/native/errors";
import { type Batch, type BatchSource, readState, requireInteger, restoreAll } from "./batch.js";

export interface DataStage {
  source: BatchSource;
  /** Batches of this stage; the last stage has no end and none of these. */
  batches?: number;
}

/**
 * Batches of the first stage, then of the next, and so on; each source begins at its start when its stage does. The stage follows from the number of
 * batches handed out, so it resumes in either.
 *
 * @example
 * const data = inStages([{ source: selected, batches: 36_000 }, { source: stream }]);
 */
export function inStages(stages: readonly DataStage[]): BatchSource {
  for (const [i, { batches }] of stages.entries()) {
    const last = i === stages.length - 1;
    if (last !== (batches === undefined)) {
      throw new OptionError(
        `[inStages] ${last ? "the last stage must have no" : `stage ${i} must have its`} number of batches.`,
      );
    }
    if (batches !== undefined) requireInteger("inStages", `the batches of stage ${i}`, batches, 0);
  }
  if (stages.length === 0) throw new OptionError("[inStages] expected stages; received none.");
  const identity = { kind: "stages", batches: stages.map(({ batches }) => batches ?? "all").join() };
  const sources = stages.map(({ source }) => source);
  let count = 0;
  const current = () => {
    let end = 0;
    return stages.find(({ batches = Number.POSITIVE_INFINITY }) => {
      end += batches;
      return count < end;
    })!.source;
  };
  return {
    async next(): Promise<Batch> {
      const batch = await current().next();
      count += 1;
      return batch;
    },
    state: () => ({ ...identity, count, states: sources.map((source) => source.state()) }),
    restore(state) {
      const read = readState("inStages.restore", state, identity, ["count"]);
      restoreAll("inStages.restore", sources, state.states);
      count = read.count;
    },
  };
}
