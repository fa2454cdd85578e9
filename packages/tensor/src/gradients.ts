import { ShapeError } from "@llmeff/native";
import { currentAnomalyMode, inspectedSum } from "./anomaly.js";
import { hold } from "./autograd.js";
import { accumulationDType } from "./dtype.js";
import { addAll } from "./ops/add-all.js";
import { claim, scope } from "./scope.js";
import { formatShape, sameShape } from "./shape.js";
import type { Step, Tape } from "./tape.js";
import type { Tensor } from "./tensor.js";

/** Takes a contribution to the gradient of a tensor. */
export type AddGradient = (contribution: Tensor) => void;

/** More contributions than this are not held, but added up on the way. */
const mostHeld = 4;

/** Gradients by tensor while the tape is read backwards: what has contributed so far, each under a handle of its own. */
export class Gradients {
  /** Added up when all are there, in one pass. Sums on the way are in float32 at least, so that bfloat16 and float16 are rounded once. */
  readonly #byTensor = new Map<Tensor, Tensor[]>();
  readonly #elsewhere: ReadonlyMap<Tensor, AddGradient>;

  /** @param elsewhere - tensors whose gradients are added up by someone else */
  constructor(elsewhere: ReadonlyMap<Tensor, AddGradient> = new Map()) {
    this.#elsewhere = elsewhere;
  }

  /** The gradient of a tensor, which the caller then owns; undefined if nothing has contributed to it. */
  take(tensor: Tensor): Tensor | undefined {
    const contributions = this.#byTensor.get(tensor);
    if (contributions === undefined) return undefined;
    this.#byTensor.delete(tensor);
    if (contributions.length > 1 || contributions[0]!.dtype !== tensor.dtype)
      replace(contributions, addAll(contributions, tensor.dtype));
    return contributions[0];
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
    let contributions = this.#byTensor.get(tensor);
    if (contributions === undefined) {
      contributions = [];
      this.#byTensor.set(tensor, contributions);
    }
    contributions.push(claim(contribution) ? contribution : hold(contribution));
    const wide = accumulationDType(tensor.dtype);
    if (contributions.length === 2 && currentAnomalyMode() !== undefined) {
      const [before, added] = contributions as [Tensor, Tensor];
      replace(
        contributions,
        inspectedSum(op, before, added, () => addAll(contributions, wide)),
      );
    } else if (contributions.length > mostHeld) replace(contributions, addAll(contributions, wide));
  }

  release(): void {
    for (const contributions of this.#byTensor.values()) for (const tensor of contributions) tensor.dispose();
    this.#byTensor.clear();
  }
}

/** Puts the sum of tensors in their place. */
function replace(contributions: Tensor[], sum: Tensor): void {
  claim(sum);
  for (const tensor of contributions) tensor.dispose();
  contributions.splice(0, contributions.length, sum);
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
