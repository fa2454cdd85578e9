import { ShapeError } from "@llmeff/native";
import { hold } from "./autograd.js";
import { add, astype } from "./ops/index.js";
import { keep, scope } from "./scope.js";
import { formatShape, sameShape } from "./shape.js";
import type { Step, Tape } from "./tape.js";
import type { Tensor } from "./tensor.js";

/** `a + b`; bfloat16 and float16 are added in float32. */
function sumOf(a: Tensor, b: Tensor): Tensor {
  const computed = a.dtype === "float32" || a.dtype === "float64";
  return computed ? add(a, b) : astype(add(astype(a, "float32"), astype(b, "float32")), a.dtype);
}

/** Takes a contribution to the gradient of a tensor. */
export type AddGradient = (contribution: Tensor) => void;

/** Gradients by tensor while the tape is read backwards, each under a handle of its own. */
export class Gradients {
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
    return gradient;
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
    this.#byTensor.set(tensor, before ? keep(sumOf(before, contribution)) : hold(contribution));
    before?.dispose();
  }

  release(): void {
    for (const gradient of this.#byTensor.values()) gradient.dispose();
    this.#byTensor.clear();
  }
}

/** Reads a tape backwards into the gradients of what came before it, and frees what each step had saved as soon as it is done. */
export function backward(tape: Tape, gradients: Gradients): void {
  for (let step = tape.steps.at(-1); step !== undefined; step = tape.steps.at(-1)) {
    backwardOf(step, gradients);
    for (const tensor of step.saved) tensor.dispose();
    tape.steps.pop();
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
