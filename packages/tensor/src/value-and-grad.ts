import { DTypeError, engine, OptionError, ShapeError } from "@llmeff/native";
import { isFloating } from "./dtype.js";
import { backward, Gradients } from "./gradients.js";
import { clone, detach, onesLike, zerosLike } from "./ops/index.js";
import { refuseAsync, register, scope } from "./scope.js";
import { formatShape } from "./shape.js";
import { currentTape, Tape, withTape } from "./tape.js";
import { Tensor } from "./tensor.js";
import { mapTree, type TensorTree, tensorsOf } from "./tree.js";

/** A loss with further tensors to return beside its gradient. */
export interface LossWithAux<A extends TensorTree> {
  loss: Tensor;
  aux: A;
}

export interface ValueAndGrad<P extends TensorTree, A extends TensorTree | undefined> {
  /** The loss. */
  value: Tensor;
  /** Gradients in the form of the parameters. A parameter that the loss doesn't depend on has a gradient of zeros. */
  grads: P;
  /** What the loss function returned beside the loss. */
  aux: A;
}

/**
 * A scalar function of parameters, and its gradient by reverse-mode differentiation.
 *
 * Everything that `loss` computes is freed at the end but `value`, `grads` and `aux`, which the caller (or the enclosing scope) owns.
 *
 * @param loss - computes a tensor with one element from the parameters; or `{ loss, aux }`
 * @param params - a tensor, or arrays and plain objects of tensors
 * @throws {ShapeError} if the loss has more than one element
 *
 * @example
 * const w = tensor([1, 2, 3]);
 * const { value, grads } = valueAndGrad((w) => w.square().sum(), w); // value 14, grads [2, 4, 6]
 */
export function valueAndGrad<P extends TensorTree, A extends TensorTree>(
  loss: (params: P) => LossWithAux<A>,
  params: P,
): ValueAndGrad<P, A>;
export function valueAndGrad<P extends TensorTree>(loss: (params: P) => Tensor, params: P): ValueAndGrad<P, undefined>;
export function valueAndGrad<P extends TensorTree>(
  loss: (params: P) => Tensor | LossWithAux<TensorTree>,
  params: P,
): ValueAndGrad<P, TensorTree | undefined> {
  const tape = new Tape();
  const gradients = new Gradients();
  const leaves = [...tensorsOf(params)];
  const current = currentTape();
  const outerTapes = leaves.map((leaf) => leaf.tape);
  for (const leaf of leaves) {
    if (!isFloating(leaf.dtype)) {
      throw new DTypeError(`[valueAndGrad] parameters must have a floating-point dtype; received ${leaf.dtype}.`);
    }
    if (current !== undefined && leaf.tape !== undefined && !leaf.tape.closed) {
      throw new OptionError(
        "[valueAndGrad] a parameter is already recorded by an enclosing valueAndGrad. Gradients of gradients are not supported; use detach() or noGrad() for a constant.",
      );
    }
  }
  if (new Set(leaves).size !== leaves.length) {
    throw new OptionError(
      "[valueAndGrad] a tensor stands in the parameters twice. Name it once: its gradient is the sum over all its uses.",
    );
  }
  try {
    return scope(() => {
      for (const leaf of leaves) leaf.tape = tape;
      const result = withTape(tape, () => loss(params));
      refuseAsync("valueAndGrad", result);
      const [value, aux] = result instanceof Tensor ? [result, undefined] : [result?.loss, result?.aux];
      if (!(value instanceof Tensor) || !isFloating(value.dtype)) {
        const received = value instanceof Tensor ? `a tensor of ${value.dtype}` : typeof value;
        throw new OptionError(
          `[valueAndGrad] the loss function must return a floating-point tensor or { loss, aux }; received ${received}.`,
        );
      }
      if (value.size !== 1) {
        throw new ShapeError(
          `[valueAndGrad] the loss must have one element; received shape ${formatShape(value.shape)}. Take its mean() or sum().`,
        );
      }
      withTape(undefined, () => {
        if (value.tape === tape) gradients.add("valueAndGrad", value, onesLike(value));
        backward(tape, gradients);
      });
      const grads = mapTree(params, (leaf) => {
        const grad = gradients.take(leaf);
        if (grad === undefined) return zerosLike(leaf);
        register(grad);
        // The caller may change a gradient in place, so it must not be a view of another one (both inputs of an addition get the same).
        return grad.isContiguous && !engine().isShared(grad.handle) ? grad : clone(grad);
      });
      for (const tensor of tensorsOf(aux)) tensor.tape = undefined;
      // A name of the caller's own: the loss function may have returned a parameter or something of an outer scope.
      return { value: detach(value), grads, aux };
    });
  } finally {
    for (const [i, leaf] of leaves.entries()) leaf.tape = outerTapes[i];
    gradients.release();
    tape.release();
  }
}

/** The gradient alone: `valueAndGrad` without the value. */
export function grad<P extends TensorTree>(loss: (params: P) => Tensor, params: P): P {
  const { value, grads } = valueAndGrad(loss, params);
  value.dispose();
  return grads;
}
