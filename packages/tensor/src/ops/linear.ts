import { engine, OptionError, ShapeError, UnaryOp } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape, reshapedStrides } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, leadingSize } from "./arguments.js";
import { clone } from "./clone.js";
import { matmulKernel } from "./matmul.js";
import { sum } from "./reduce.js";
import { reshape, transpose } from "./views.js";

const activations = ["relu", "gelu", "geluErf", "silu"] as const;

export interface LinearOptions {
  /** Applied to the result in the same pass: `relu`, `silu`, `gelu` (its tanh form, as `gelu(x)`) or `geluErf` (`x · Φ(x)`). */
  activation?: (typeof activations)[number] | undefined;
}

/** The rows of `[…, C]` as a matrix. */
function matrixOf(x: Tensor): Tensor {
  return reshape(x, [leadingSize(x.shape), x.shape.at(-1)!]);
}

/** `x` with at least two axes and its rows at even distances, so that one product takes them all. */
function evenRows(x: Tensor): Tensor {
  if (x.rank === 1) return matrixOf(x);
  const even = reshapedStrides(x.shape, x.strides, [leadingSize(x.shape), x.shape.at(-1)!]) !== undefined;
  return even ? x : clone(x);
}

const linearOp = defineOp<LinearOptions>({
  name: "linear",
  forward(context, [x, weight, bias], { activation }) {
    const input = evenRows(x!);
    const shape = input.shape.with(-1, weight!.shape[0]!);
    // The slope of relu shows in its result; the others need what they were applied to.
    const keepsPre = context.recording && activation !== undefined && activation !== "relu";
    const pre = keepsPre ? Tensor.allocate(input.dtype, shape) : undefined;
    const out = matmulKernel(input, weight!, { bias, activation, pre, transposed: true });
    if (activation === undefined) context.save(input, weight!);
    else context.save(input, weight!, pre ?? out);
    return x!.rank === 1 ? reshape(out, shape.slice(1)) : out;
  },
  backward({ needs, saved: [x, weight, active], shapes, options: { activation } }, dout) {
    let rows = matrixOf(dout);
    if (activation !== undefined) {
      const dpre = Tensor.allocate(rows.dtype, rows.shape);
      engine().op.unaryGrad(UnaryOp[activation], matrixOf(active!).handle, rows.handle, dpre.handle);
      rows = dpre;
    }
    return [
      needs[0] ? reshape(matmulKernel(rows, weight!), shapes[0]!) : null,
      needs[1] ? matmulKernel(transpose(rows), matrixOf(x!)) : null,
      needs[2] ? sum(rows, { axis: 0 }) : null,
    ];
  },
});

/**
 * A fully connected layer, `out = activation(x · weightᵀ + bias)`, as one product over all rows.
 *
 * @param x - `[…, I]`; all of one floating-point dtype, 16-bit ones summed up in float32 and rounded once
 * @param weight - `[O, I]`
 * @param bias - `[O]`
 * @param options.activation - default none
 * @returns `[…, O]`
 * @throws {ShapeError} if the sizes don't fit
 *
 * @example
 * linear(x, weight, bias, { activation: "gelu" }); // gelu(linear(x, weight, bias))
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor, options: LinearOptions = {}): Tensor {
  checkFloating("linear", bias ? { x, weight, bias } : { x, weight });
  if (weight.rank !== 2 || x.rank === 0 || x.shape.at(-1) !== weight.shape[1]) {
    throw new ShapeError(
      `[linear] expected x […, I] and weight [O, I]; received ${formatShape(x.shape)} and ${formatShape(weight.shape)}.`,
    );
  }
  if (bias && (bias.rank !== 1 || bias.size !== weight.shape[0] || !bias.isContiguous)) {
    throw new ShapeError(
      `[linear] bias must be [${weight.shape[0]}], contiguous; received ${formatShape(bias.shape)}.`,
    );
  }
  const { activation } = options;
  if (activation !== undefined && !activations.includes(activation)) {
    throw new OptionError(
      `[linear] activation must be one of ${activations.join(", ")}; received ${JSON.stringify(activation)}. Leave it out for none.`,
    );
  }
  return linearOp(bias ? [x, weight, bias] : [x, weight], { activation });
}
