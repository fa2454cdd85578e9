import { OptionError } from "@llmeff/native";
import { defineOp } from "./autograd.js";
import { refuseAsync } from "./scope.js";
import { Tensor } from "./tensor.js";
import { inPlacesOf, replaceTensors, tensorsOf } from "./tree.js";

/** The gradient that arrives for a value: in its form, with null in the place of a tensor that the loss doesn't depend on. */
export type GradientOf<T> = T extends Tensor
  ? Tensor | null
  : T extends object
    ? { readonly [K in keyof T]: GradientOf<T[K]> }
    : T;

/** The gradient to give for an argument: in its form, with null for what needs none. */
export type GradientFor<T> = T extends Tensor
  ? Tensor | null
  : T extends object
    ? { readonly [K in keyof T]: GradientFor<T[K]> } | null
    : null;

interface Call<A, R> {
  readonly args: A;
  result?: R;
}

/**
 * A function with a gradient of your own instead of that of its operations: for an estimator (straight-through, clipped or reversed gradients),
 * for a solver whose derivative is known without its steps, or for a formula that is more stable than what follows from the code.
 *
 * It is `defineOp` for functions of arguments in any form: it holds the tensors of the arguments and the result for the backward pass, and
 * doesn't tell which gradients are needed. An operation that saves something else or less, or has a kernel, is made with `defineOp`.
 *
 * @param fn - gives a tensor, or a value with tensors in arrays and plain objects; tensors that it uses without having them as arguments are constants
 * @param backward - the gradients of the arguments, as an array in their order, from that of the result
 *
 * @example
 * // Rounds, and lets gradients through as if it didn't.
 * const quantize = customGrad((x: Tensor) => x.astype("int32").astype("float32"), (dy) => [dy]);
 */
export function customGrad<A extends readonly unknown[], R>(
  fn: (...args: A) => R,
  backward: (
    gradient: R extends Tensor ? Tensor : GradientOf<R>,
    call: { readonly args: A; readonly result: R },
  ) => { readonly [K in keyof A]: GradientFor<A[K]> },
): (...args: A) => R {
  const name = fn.name || "customGrad";
  const op = defineOp<Call<A, R>, readonly Tensor[]>({
    name,
    forward(context, inputs, call) {
      const result = fn(...(replaceTensors(call.args, inputs) as A));
      refuseAsync(name, result);
      const results = [...tensorsOf(result)];
      context.save(...inputs, ...results);
      call.result = result;
      return results;
    },
    backward({ needs, saved, options: call }, douts) {
      const args = replaceTensors(call.args, saved.slice(0, needs.length)) as A;
      const result = replaceTensors(call.result, saved.slice(needs.length)) as R;
      const gradient = replaceTensors(call.result, douts) as R extends Tensor ? Tensor : GradientOf<R>;
      return [...inPlacesOf(call.args, backward(gradient, { args, result }))].map((g, i) =>
        checkedGradient(name, g, i),
      );
    },
  });
  return (...args) => {
    const call: Call<A, R> = { args };
    const results = op([...tensorsOf(args)], call);
    return replaceTensors(call.result, results) as R;
  };
}

function checkedGradient(name: string, gradient: unknown, input: number): Tensor | null {
  if (gradient === null || gradient instanceof Tensor) return gradient;
  throw new OptionError(
    `[${name}] expected backward to return an array of gradients in the form of the arguments, with a tensor or null for each tensor; received ${typeof gradient} for tensor ${input + 1}.`,
  );
}
