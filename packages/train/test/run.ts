import type { Batch, BatchSource } from "@llmeff/data";
import type { StepEvent, TrainEvent } from "../src/index.js";

/** All events of a run. */
export async function collect(events: AsyncIterable<TrainEvent>): Promise<TrainEvent[]> {
  const all: TrainEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

export const stepsOf = (events: readonly TrainEvent[]) =>
  events.filter((event): event is StepEvent => event.type === "step");

/** Hands out the given batches again and again. */
export function cycle(batches: readonly Batch[]): BatchSource {
  let index = 0;
  return {
    next: () => batches[index++ % batches.length]!,
    state: () => ({ index }),
    restore: (state) => {
      index = state.index as number;
    },
  };
}
