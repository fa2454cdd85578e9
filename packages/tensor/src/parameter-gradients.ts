import { engine, OptionError, ShapeError } from "@llmeff/native";
import { hold } from "./autograd.js";
import { backward, type Gradients } from "./gradients.js";
import { clone, zerosLike } from "./ops/index.js";
import { claim, refuseAsync, register, scope } from "./scope.js";
import { formatShape, sameShape } from "./shape.js";
import type { Step, Tape } from "./tape.js";
import { Tensor } from "./tensor.js";

export interface GradientOptions {
  /**
   * Called with each parameter's gradient as soon as it is final, while those of earlier operations are still to be computed: in the order in
   * which backward comes to the parameters' first uses, then, as zeros, with those that the loss doesn't depend on. It is
   * the same order for the same loss function, on every machine.
   *
   * The gradient is the tensor that will stand in `grads`, and may be changed in place; a tensor of the same shape and dtype that is returned
   * takes its place. Other tensors that the function makes are freed.
   *
   * @param path - keys of the parameter joined with dots, such as `"layers.0.weight"`; empty if the parameters are one tensor
   *
   * @example
   * const onGradient = (path: string, gradient: Tensor) => void pending.push(allReduce(path, gradient));
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: functions that return nothing are welcome
  onGradient?(path: string, gradient: Tensor): Tensor | undefined | void;
}

/** Reads the tape backwards and gives the gradients by parameter, as tensors of the innermost scope. */
export function finalGradients(
  tape: Tape,
  gradients: Gradients,
  paths: ReadonlyMap<Tensor, string>,
  onGradient: GradientOptions["onGradient"],
): Map<Tensor, Tensor> {
  const final = new Map<Tensor, Tensor>();
  const finish = (leaf: Tensor, gradient: Tensor) => {
    const own = owned(gradient);
    final.set(leaf, onGradient === undefined ? own : replaced(own, paths.get(leaf)!, onGradient));
  };
  const ends = onGradient && leavesByFirstUse(tape, paths);
  backward(tape, gradients, (step) => {
    for (const leaf of ends?.get(step) ?? []) {
      const gradient = gradients.take(leaf);
      if (gradient !== undefined) finish(leaf, gradient);
    }
  });
  for (const leaf of paths.keys()) if (!final.has(leaf)) finish(leaf, gradients.take(leaf) ?? zerosLike(leaf));
  return final;
}

/** Parameters by the first operation that uses them: when backward is through with it, nothing more is added to their gradients. */
function leavesByFirstUse(tape: Tape, leaves: ReadonlyMap<Tensor, string>): Map<Step, Tensor[]> {
  const seen = new Set<Tensor>();
  const byStep = new Map<Step, Tensor[]>();
  for (const step of tape.steps) {
    const first = step.inputs.filter((input) => leaves.has(input) && !seen.has(input));
    for (const leaf of first) seen.add(leaf);
    if (first.length > 0) byStep.set(step, [...new Set(first)]);
  }
  return byStep;
}

/** The gradient as a tensor of the innermost scope that may be changed in place: none of its elements are another's. */
function owned(gradient: Tensor): Tensor {
  register(gradient);
  // Both inputs of an addition get the same gradient.
  return gradient.isContiguous && !engine().isOverlapped(gradient.handle) ? gradient : clone(gradient);
}

function replaced(gradient: Tensor, path: string, onGradient: NonNullable<GradientOptions["onGradient"]>): Tensor {
  const replacement = scope(() => {
    const result: unknown = onGradient(path, gradient);
    refuseAsync("onGradient", result);
    return result;
  });
  if (replacement === undefined || replacement === gradient) return gradient;
  if (!(replacement instanceof Tensor)) {
    throw new OptionError(
      `[onGradient] expected a tensor or nothing for the parameter "${path}"; received ${typeof replacement}.`,
    );
  }
  if (replacement.dtype !== gradient.dtype || !sameShape(replacement.shape, gradient.shape)) {
    throw new ShapeError(
      `[onGradient] expected ${gradient.dtype} ${formatShape(gradient.shape)} for the parameter "${path}"; received ${replacement.dtype} ${formatShape(replacement.shape)}.`,
    );
  }
  const own = owned(claim(replacement) ? replacement : hold(replacement));
  gradient.dispose();
  return own;
}
