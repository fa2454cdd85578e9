import { OptionError } from "@llmeff/native";
import { defineOp } from "../../autograd.js";
import { scope } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import { checkFloating } from "../arguments.js";
import { widened } from "../cast.js";
import { clip } from "../clip.js";
import { abs, sign } from "../unary.js";
import { checkReduction, checkSameShape, type LossOptions, reduceLosses, spreadLoss } from "./reduction.js";

/** A loss of the differences `prediction − target`, element by element, and its derivative. */
function define(name: string, loss: (d: Tensor, delta: number) => Tensor, slope: (d: Tensor, delta: number) => Tensor) {
  return defineOp<Required<HuberLossOptions>>({
    name,
    forward(context, [prediction, target], { reduction, delta }) {
      const difference = prediction!.sub(target!);
      context.save(difference);
      return reduceLosses(loss(difference, delta), reduction);
    },
    backward({ needs, saved: [difference], options: { reduction, delta } }, dout) {
      const gradient = slope(difference!, delta).mul(spreadLoss(dout, reduction, difference!.size));
      return [needs[0] ? gradient : null, needs[1] ? gradient.neg() : null];
    },
  });
}

const operations = {
  mseLoss: define(
    "mseLoss",
    (d) => d.square(),
    (d) => d.mul(2),
  ),
  l1Loss: define("l1Loss", abs, sign),
  // With c = clip(d, −delta, delta) both branches are c · (d − c/2).
  huberLoss: define(
    "huberLoss",
    (d, delta) => {
      const c = clip(d, -delta, delta);
      return c.mul(d.sub(c.mul(0.5)));
    },
    (d, delta) => clip(d, -delta, delta),
  ),
};

function apply(
  name: keyof typeof operations,
  prediction: Tensor,
  target: Tensor,
  { reduction = "mean" }: LossOptions,
  delta = 0,
): Tensor {
  checkFloating(name, { prediction, target });
  checkSameShape(name, { prediction, target });
  checkReduction(name, reduction);
  return scope(() => operations[name]([widened(prediction), widened(target)], { reduction, delta }));
}

/** The mean of `(prediction − target)²` over all elements; or their sum, or each. Equal shapes; float32 of 16-bit numbers. */
export function mseLoss(prediction: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  return apply("mseLoss", prediction, target, options);
}

/** The mean of `|prediction − target|`, with derivative 0 where they are equal; or the sum, or each. As `mseLoss` otherwise. */
export function l1Loss(prediction: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  return apply("l1Loss", prediction, target, options);
}

export interface HuberLossOptions extends LossOptions {
  /** Differences up to this count with their squares; default 1. */
  delta?: number;
}

/**
 * The mean of `d²/2` where `|d| ≤ delta`, else `delta · (|d| − delta/2)`, for `d = prediction − target` (Huber 1964); or the sum, or each. As
 * `mseLoss` otherwise.
 */
export function huberLoss(prediction: Tensor, target: Tensor, options: HuberLossOptions = {}): Tensor {
  const { delta = 1 } = options;
  if (typeof delta !== "number" || !(delta > 0 && delta < Infinity)) {
    throw new OptionError(`[huberLoss] delta must be a positive number; received ${delta}.`);
  }
  return apply("huberLoss", prediction, target, options, delta);
}
