/** What the backward pass of a block computes again, instead of finding it in memory. */
import { type CheckpointOptions, checkpoint, OptionError } from "@llmeff/tensor";
import { type BlockContext, type BlockResult, block } from "./block.js";
import { hiddenMark } from "./feed-forward.js";
import type { Stream } from "./norm.js";

/** By falling savings. */
export const recomputeChoices = ["block", "selective", "activations"] as const;

/**
 * What is computed again: `"block"`: everything, of a block its input alone is kept; `"selective"`: norms and the wide
 * activations of the feed-forward part, while what attention and the products of the model's width give is kept; `"activations"`: norms, activations and what else is no product of matrices and no attention.
 */
export type RecomputeChoice = (typeof recomputeChoices)[number];

/** Operations that cost much for the size of their results. */
const dear: ReadonlySet<string> = new Set([
  "linear",
  "linearWide",
  "groupedMatmul",
  "attention",
  "simplicialAttention",
]);

const options: Record<RecomputeChoice, CheckpointOptions> = {
  block: {},
  selective: { keep: (op, marks) => dear.has(op) && !marks.includes(hiddenMark) },
  activations: { keep: (op) => dear.has(op) },
};

/** @throws {OptionError} for what is no choice; `true` is `"block"` */
export function recomputeChoice(given: unknown): RecomputeChoice | undefined {
  if (given === undefined || given === false) return undefined;
  const choice = given === true ? "block" : recomputeChoices.find((one) => one === given);
  if (choice !== undefined) return choice;
  throw new OptionError(
    `[Transformer] recompute must be true, false or one of ${recomputeChoices.join(", ")}; received ${JSON.stringify(given)}.`,
  );
}

/** A block of which the backward pass has less; tensors made in this pass are named, which would be gone when it is computed again. */
export function recomputed(choice: RecomputeChoice, context: BlockContext, stream: Stream): BlockResult {
  const { angles, masks } = context;
  const again = (from: Stream, made: Pick<BlockContext, "angles" | "masks">) => block({ ...context, ...made }, from);
  return checkpoint(options[choice], again, stream, { angles, masks });
}
