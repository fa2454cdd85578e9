import { engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { full } from "./creation.js";

/** How many elements go before and after an axis. */
export type PadWidths = readonly (readonly [before: number, after: number])[];

const padOp = defineOp<{ widths: PadWidths; value: number }>({
  name: "pad",
  forward(_context, [x], { widths, value }) {
    const shape = x!.shape.map((n, axis) => widths[axis]![0] + n + widths[axis]![1]);
    const out = full(shape, value, { dtype: x!.dtype });
    engine().op.copy(x!.handle, inner(out, widths, x!.shape).handle);
    return out;
  },
  backward: ({ shapes: [shape], options: { widths } }, dout) => [inner(dout, widths, shape!)],
});

/** What lies within the padding. */
function inner(padded: Tensor, widths: PadWidths, shape: readonly number[]): Tensor {
  const offset =
    sizeOf(shape) === 0 ? 0 : widths.reduce((sum, [before], axis) => sum + before * padded.strides[axis]!, 0);
  return padded.view(shape, padded.strides, offset);
}

/**
 * A copy with `value` before and after each axis.
 *
 * @param widths - for each axis how many before and how many after
 *
 * @example
 * pad(tensor([[1, 2]]), [[0, 1], [1, 0]]); // [[0, 1, 2], [0, 0, 0]]
 */
export function pad(x: Tensor, widths: PadWidths, value = 0): Tensor {
  checkTensor("pad", "x", x);
  const isWidth = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
  const valid =
    Array.isArray(widths) &&
    widths.length === x.rank &&
    widths.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isWidth));
  if (!valid) {
    throw new ShapeError(
      `[pad] expected [before, after] of non-negative integers for each of the ${x.rank} axes; received ${JSON.stringify(widths)}.`,
    );
  }
  return padOp([x], { widths, value });
}
