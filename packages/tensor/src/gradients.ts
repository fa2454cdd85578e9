import { ShapeError } from "@llmeff/native";
import { inspectedSum } from "./anomaly.js";
import { hold } from "./autograd.js";
import { widened } from "./ops/cast.js";
import { add, astype } from "./ops/index.js";
import { claim, scope } from "./scope.js";
import { formatShape, sameShape } from "./shape.js";
import type { Step, Tape } from "./tape.js";
import type { Tensor } from "./tensor.js";

/** Takes a contribution to the gradient of a tensor. */
export type AddGradient = (contribution: Tensor) => void;

/** Gradients by tensor while the tape is read backwards, each under a handle of its own. */
export class Gradients {
  /** Sums of several contributions to a gradient in bfloat16 or float16 stay in float32, to be rounded once. */
  readonly #byTensor = new Map<Tensor, Tensor>();
  readonly #elsewhere: ReadonlyMap<Tensor, AddGradient>;

  /** @param elsewhere - tensors whose gradients are added up by someone else */
  constructor(elsewhere: ReadonlyMap<Tensor, AddGradient> = new Map()) {
    this.#elsewhere = elsewhere;
  }

  /** The gradient of a tensor, which the caller then owns; undefined if nothing has contributed to it. */
  take(tensor: Tensor): Tensor | undefined {
    const gradient = this.#byTensor.get(tensor);
    this.#byTensor.delete(tensor);
    if (gradient === undefined || gradient.dtype === tensor.dtype) return gradient;
    using wide = gradient;
    const narrow = astype(wide, tensor.dtype);
    claim(narrow);
    return narrow;
  }

  /** Adds a contribution; it may share memory with other tensors. */
  add(op: string, tensor: Tensor, contribution: Tensor): void {
    if (!sameShape(tensor.shape, contribution.shape) || tensor.dtype !== contribution.dtype) {
      throw new ShapeError(
        `[${op}] backward returned a gradient of ${contribution.dtype} ${formatShape(contribution.shape)} for an input of ${tensor.dtype} ${formatShape(tensor.shape)}.`,
      );
    }
    const addElsewhere = this.#elsewhere.get(tensor);
    if (addElsewhere !== undefined) {
      addElsewhere(contribution);
      return;
    }
    const before = this.#byTensor.get(tensor);
    if (before !== undefined) {
      const sum = inspectedSum(op, before, contribution, () => add(widened(before), widened(contribution)));
      claim(sum);
      this.#byTensor.set(tensor, sum);
      before.dispose();
    } else this.#byTensor.set(tensor, claim(contribution) ? contribution : hold(contribution));
  }

  release(): void {
    for (const gradient of this.#byTensor.values()) gradient.dispose();
    this.#byTensor.clear();
  }
}

/**
 * Reads a tape backwards into the gradients of what came before it, and frees what each step had saved as soon as it is done.
 *
 * @param done - called after each step
 */
export function backward(tape: Tape, gradients: Gradients, done?: (step: Step) => void): void {
  for (let step = tape.steps.at(-1); step !== undefined; step = tape.steps.at(-1)) {
    backwardOf(step, gradients);
    for (const tensor of step.saved) tensor.dispose();
    tape.steps.pop();
    done?.(step);
  }
}

function backwardOf({ op, inputs, outputs, backward }: Step, gradients: Gradients): void {
  const taken = outputs.map((output) => output && gradients.take(output));
  try {
    // Nothing depends on what has no elements, and kernels are not asked about empty arrays.
    const douts = taken.map((dout) => (dout && dout.size > 0 ? dout : null));
    if (douts.every((dout) => dout === null)) return;
    scope(() => backward(douts, (i, contribution) => gradients.add(op, inputs[i]!, contribution)));
  } finally {
    for (const dout of taken) dout?.dispose();
  }
}
