import { DTypeError, OptionError, ShapeError } from "@llmeff/native";
import { isFloating } from "./dtype.js";
import { Gradients } from "./gradients.js";
import { detach, onesLike } from "./ops/index.js";
import { finalGradients, type GradientOptions } from "./parameter-gradients.js";
import { refuseAsync, scope } from "./scope.js";
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
 * Gradients have the dtypes of their parameters; the contributions of several uses are added in float32 at least.
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
  options?: GradientOptions,
): ValueAndGrad<P, A>;
export function valueAndGrad<P extends TensorTree>(
  loss: (params: P) => Tensor,
  params: P,
  options?: GradientOptions,
): ValueAndGrad<P, undefined>;
export function valueAndGrad<P extends TensorTree>(
  loss: (params: P) => Tensor | LossWithAux<TensorTree>,
  params: P,
  { onGradient }: GradientOptions = {},
): ValueAndGrad<P, TensorTree | undefined> {
  const tape = new Tape();
  const paths = pathsOf(params);
  const outerTapes = new Map([...paths.keys()].map((leaf) => [leaf, leaf.tape]));
  const gradients = new Gradients();
  try {
    return scope(() => {
      for (const leaf of paths.keys()) leaf.tape = tape;
      const result = withTape(tape, () => loss(params));
      const [value, aux] = checkedLoss(result);
      const final = withTape(undefined, () => {
        if (value.tape === tape) gradients.add("valueAndGrad", value, onesLike(value));
        return finalGradients(tape, gradients, paths, onGradient);
      });
      for (const tensor of tensorsOf(aux)) if (tensor.tape === tape) tensor.tape = undefined;
      // A name of the caller's own: the loss function may have returned a parameter or something of an outer scope.
      return { value: detach(value), grads: mapTree(params, (leaf) => final.get(leaf)!), aux };
    });
  } finally {
    for (const [leaf, outerTape] of outerTapes) leaf.tape = outerTape;
    gradients.release();
    tape.release();
  }
}

/** The parameters with their names. */
function pathsOf(params: TensorTree): Map<Tensor, string> {
  const paths = new Map<Tensor, string>();
  const current = currentTape();
  mapTree(params, (leaf, path) => {
    if (!isFloating(leaf.dtype)) {
      throw new DTypeError(`[valueAndGrad] parameters must have a floating-point dtype; received ${leaf.dtype}.`);
    }
    if (current !== undefined && leaf.tape !== undefined && !leaf.tape.closed) {
      throw new OptionError(
        "[valueAndGrad] a parameter is already recorded by an enclosing valueAndGrad. Gradients of gradients are not supported; use detach() or noGrad() for a constant.",
      );
    }
    if (paths.has(leaf)) {
      throw new OptionError(
        "[valueAndGrad] a tensor stands in the parameters twice. Name it once: its gradient is the sum over all its uses.",
      );
    }
    paths.set(leaf, path);
    return leaf;
  });
  return paths;
}

function checkedLoss(result: Tensor | LossWithAux<TensorTree>): [Tensor, TensorTree | undefined] {
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
  return [value, aux];
}

/** The gradient alone: `valueAndGrad` without the value. */
export function grad<P extends TensorTree>(loss: (params: P) => Tensor, params: P, options?: GradientOptions): P {
  const { value, grads } = valueAndGrad(loss, params, options);
  value.dispose();
  return grads;
}
