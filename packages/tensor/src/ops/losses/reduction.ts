import { OptionError, ShapeError } from "@llmeff/native";
import { formatShape, sameShape } from "../../shape.js";
import type { Tensor } from "../../tensor.js";
import { mean, sum } from "../reduce.js";

// Losses are float32 for bfloat16 and float16 arguments, as those of `crossEntropy`: a mean over many elements is worth its digits.

/** What becomes of the losses of all elements: their mean, their sum, or all of them. */
export type LossReduction = "mean" | "sum" | "none";

export interface LossOptions {
  /** Default "mean". */
  reduction?: LossReduction;
}

export function checkReduction(where: string, reduction: unknown): asserts reduction is LossReduction {
  if (reduction !== "mean" && reduction !== "sum" && reduction !== "none") {
    throw new OptionError(
      `[${where}] reduction must be "mean", "sum" or "none"; received ${JSON.stringify(reduction)}.`,
    );
  }
}

/** Losses don't broadcast: [N, 1] against [N] would quietly compare every pair. */
export function checkSameShape(where: string, tensors: Record<string, Tensor>): void {
  const [[first, a], [second, b]] = Object.entries(tensors) as [[string, Tensor], [string, Tensor]];
  if (sameShape(a.shape, b.shape)) return;
  throw new ShapeError(
    `[${where}] shapes differ: ${first} is ${formatShape(a.shape)} and ${second} is ${formatShape(b.shape)}. Use reshape() or expand().`,
  );
}

export function reduceLosses(losses: Tensor, reduction: LossReduction): Tensor {
  return reduction === "mean" ? mean(losses) : reduction === "sum" ? sum(losses) : losses;
}

/** The gradient of each of `count` losses for that of what they were reduced to; broadcasts against them. */
export function spreadLoss(dout: Tensor, reduction: LossReduction, count: number): Tensor {
  return reduction === "mean" ? dout.div(count) : dout;
}
