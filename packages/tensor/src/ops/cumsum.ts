import { engine } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { normalizeAxis } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkComparable } from "./arguments.js";

export interface CumsumOptions {
  /** Add up from the end of the axis; default from its start. */
  reverse?: boolean;
}

interface Scan {
  axis: number;
  reverse: boolean;
}

const cumsumOp = defineOp<Scan>({
  name: "cumsum",
  forward(_context, [x], { axis, reverse }) {
    const out = Tensor.allocate(x!.dtype, x!.shape);
    engine().op.cumsum(x!.handle, axis, reverse, out.handle);
    return out;
  },
  // An element is part of every sum from its own place on.
  backward: ({ options: { axis, reverse } }, dout) => [cumsum(dout, axis, { reverse: !reverse })],
});

/** Running sums along an axis, `out[i] = Σ_{j ≤ i} x[j]`; float32 is added up in float64, int32 wraps around. */
export function cumsum(x: Tensor, axis: number, options: CumsumOptions = {}): Tensor {
  checkComparable("cumsum", "x", x);
  const { reverse = false } = options;
  return cumsumOp([x], { axis: normalizeAxis("cumsum", axis, x.rank), reverse });
}
