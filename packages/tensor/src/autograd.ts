import { DTypeError, engine, LlmeffError, OptionError, ShapeError } from "@llmeff/native";
import { isFloating } from "./dtype.js";
import { add, astype, clone, detach, onesLike, zerosLike } from "./ops/index.js";
import { keep, refuseAsync, register, scope } from "./scope.js";
import { formatShape, sameShape } from "./shape.js";
import { Tensor } from "./tensor.js";
import { mapTree, type TensorTree, tensorsOf } from "./tree.js";

/** One operation of the forward pass that gradients must go back through. */
interface Step {
  op: string;
  inputs: readonly Tensor[];
  output: Tensor;
  /** Memory that backward reads, held by the step alone. */
  saved: readonly Tensor[];
  backward(dout: Tensor): readonly (Tensor | null)[];
}

/** The operations of one `valueAndGrad`, in the order in which they were called. */
export class Tape {
  readonly steps: Step[] = [];
  /** What was computed under a closed tape, and outlives it, is a constant. */
  closed = false;

  release(): void {
    this.closed = true;
    for (const step of this.steps) for (const tensor of step.saved) tensor.dispose();
    this.steps.length = 0;
  }
}

/** The innermost recording; undefined inside `noGrad` and while gradients are computed. */
let current: Tape | undefined;

function withTape<R>(tape: Tape | undefined, fn: () => R): R {
  const outer = current;
  current = tape;
  try {
    return fn();
  } finally {
    current = outer;
  }
}

/** Runs `fn` without recording: its results are constants to an enclosing `valueAndGrad`. */
export function noGrad<R>(fn: () => R): R {
  return withTape(undefined, fn);
}

/** What an op's forward pass may use. */
export interface ForwardContext {
  /** Per input: whether its gradient will be asked for. */
  readonly needs: readonly boolean[];
  /** Whether any is. */
  readonly recording: boolean;
  /** Keeps tensors for the backward pass, where they are `saved` in the same order. Does nothing when not recording. */
  save(...tensors: Tensor[]): void;
}

/** What an op's backward pass may use. */
export interface BackwardContext<O> {
  readonly needs: readonly boolean[];
  readonly saved: readonly Tensor[];
  /** Shapes of the inputs. */
  readonly shapes: readonly (readonly number[])[];
  readonly options: O;
}

/** An operation with its gradient. */
export interface OpDefinition<O> {
  name: string;
  /** Checks its arguments, computes the result, and saves what `backward` needs. Temporary tensors are freed when it returns. */
  forward(context: ForwardContext, inputs: readonly Tensor[], options: O): Tensor;
  /** The gradients of the inputs for the gradient of the result; null for an input that needs none. Temporary tensors are freed. */
  backward(context: BackwardContext<O>, dout: Tensor): readonly (Tensor | null)[];
}

/** An alias of a tensor's memory with no tape; the gradient machinery holds its own, so that users may dispose theirs. */
function aliasOf(tensor: Tensor): Tensor {
  return tensor.view(tensor.shape, tensor.strides);
}

/** An alias that belongs to no scope. */
function hold(tensor: Tensor): Tensor {
  return keep(aliasOf(tensor));
}

/**
 * Makes a differentiable function of tensors.
 *
 * @example
 * const cube = defineOp<object>({
 *   name: "cube",
 *   forward(context, [x]) {
 *     context.save(x!);
 *     return x!.mul(x!).mul(x!);
 *   },
 *   backward({ saved: [x] }, dout) {
 *     return [dout.mul(x!.square().mul(3))];
 *   },
 * });
 */
export function defineOp<O>(definition: OpDefinition<O>): (inputs: readonly Tensor[], options: O) => Tensor {
  const { name } = definition;
  return (inputs, options) => {
    const tape = current;
    const needs = inputs.map((input, i) => {
      if (!(input instanceof Tensor)) {
        const received = input === null ? "null" : typeof input;
        throw new DTypeError(`[${name}] argument ${i + 1} must be a Tensor; received ${received}. Use tensor(…).`);
      }
      if (input.tape === undefined || input.tape.closed) return false;
      if (tape !== undefined && input.tape !== tape) {
        throw new LlmeffError(
          "ERR_OPTION",
          `[${name}] an input belongs to another valueAndGrad than the innermost one. Gradients of gradients are not supported; use detach() for a constant.`,
        );
      }
      return tape !== undefined;
    });
    const recording = needs.includes(true);
    const saved: Tensor[] = [];
    let output: Tensor;
    try {
      // The forward pass of an op may be written with other ops; only the op itself is recorded.
      output = withTape(undefined, () =>
        scope(() =>
          definition.forward(
            {
              needs,
              recording,
              save(...tensors) {
                if (recording) for (const tensor of tensors) saved.push(hold(tensor));
              },
            },
            inputs,
            options,
          ),
        ),
      );
    } catch (error) {
      for (const tensor of saved) tensor.dispose();
      throw error;
    }
    if (recording && isFloating(output.dtype)) {
      // An op may return its input; the result must be a tensor of its own to have a gradient of its own.
      if (inputs.includes(output)) output = aliasOf(output);
      output.tape = tape;
      const shapes = inputs.map((input) => input.shape);
      tape!.steps.push({
        op: name,
        inputs,
        output,
        saved,
        // Nothing came out, so nothing depends on the inputs: kernels are not asked about empty arrays.
        backward: (dout) =>
          dout.size === 0
            ? inputs.map((input, i) => (needs[i] ? zerosLike(input) : null))
            : definition.backward({ needs, saved, shapes, options }, dout),
      });
    } else {
      for (const tensor of saved) tensor.dispose();
    }
    return output;
  };
}

/** `a + b`; bfloat16 and float16 are added in float32. */
function sumOf(a: Tensor, b: Tensor): Tensor {
  const computed = a.dtype === "float32" || a.dtype === "float64";
  return computed ? add(a, b) : astype(add(astype(a, "float32"), astype(b, "float32")), a.dtype);
}

/** Gradients by tensor while the tape is read backwards, each under a handle of its own. */
class Gradients {
  readonly #byTensor = new Map<Tensor, Tensor>();

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
    const before = this.#byTensor.get(tensor);
    this.#byTensor.set(tensor, before ? keep(sumOf(before, contribution)) : hold(contribution));
    before?.dispose();
  }

  release(): void {
    for (const gradient of this.#byTensor.values()) gradient.dispose();
    this.#byTensor.clear();
  }
}

function backward(tape: Tape, loss: Tensor, gradients: Gradients): void {
  if (loss.tape === tape) {
    using one = onesLike(loss);
    gradients.add("valueAndGrad", loss, one);
  }
  for (let i = tape.steps.length - 1; i >= 0; i--) {
    const step = tape.steps[i]!;
    const dout = gradients.take(step.output);
    if (dout !== undefined) {
      using _ = dout;
      scope(() => {
        const contributions = step.backward(dout);
        for (const [k, input] of step.inputs.entries()) {
          const contribution = contributions[k];
          if (contribution && input.tape === tape) gradients.add(step.op, input, contribution);
        }
      });
    }
    for (const tensor of step.saved) tensor.dispose();
    tape.steps.pop();
  }
}

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
  const outerTapes = leaves.map((leaf) => leaf.tape);
  for (const leaf of leaves) {
    if (!isFloating(leaf.dtype)) {
      throw new DTypeError(`[valueAndGrad] parameters must have a floating-point dtype; received ${leaf.dtype}.`);
    }
    if (current !== undefined && leaf.tape === current) {
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
      withTape(undefined, () => backward(tape, value, gradients));
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
