import { ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkFloating, leadingSize } from "./arguments.js";
import { matmulKernel } from "./matmul.js";
import { sum } from "./reduce.js";
import { reshape, transpose } from "./views.js";

const linearOp = defineOp<undefined>({
  name: "linear",
  forward(context, [x, weight, bias]) {
    const flat = reshape(x!, [leadingSize(x!.shape), x!.shape.at(-1)!]);
    context.save(flat, weight!);
    const out = matmulKernel(flat, transpose(weight!), bias ?? null);
    return reshape(out, [...x!.shape.slice(0, -1), weight!.shape[0]!]);
  },
  backward({ needs, saved: [x, weight], shapes }, dout) {
    const rows = reshape(dout, [x!.shape[0]!, weight!.shape[0]!]);
    return [
      needs[0] ? reshape(matmulKernel(rows, weight!, null), shapes[0]!) : null,
      needs[1] ? matmulKernel(transpose(rows), x!, null) : null,
      needs[2] ? sum(rows, { axis: 0 }) : null,
    ];
  },
});

/**
 * A fully connected layer, `out = x · weightᵀ + bias`, as one product over all rows.
 *
 * @param x - `[…, I]`
 * @param weight - `[O, I]`
 * @param bias - `[O]`
 * @returns `[…, O]`
 * @throws {ShapeError} if the sizes don't fit
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
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
  return linearOp(bias ? [x, weight, bias] : [x, weight], undefined);
}
