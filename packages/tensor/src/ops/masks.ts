/** Elements replaced where a mask says so. */
import { DTypeError, OptionError, ShapeError } from "@llmeff/native";
import { scope } from "../scope.js";
import { broadcastShapes, formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { greaterEqual, lessEqual } from "./binary.js";
import { arange } from "./ranges.js";
import { unsqueeze } from "./views.js";
import { where } from "./where.js";

/** `value` where `mask` (bool, broadcast to the shape of `x`) is true, else `x`. */
export function maskedFill(x: Tensor, mask: Tensor, value: number): Tensor {
  checkTensor("maskedFill", "x", x);
  checkTensor("maskedFill", "mask", mask);
  if (mask.dtype !== "bool") {
    throw new DTypeError(`[maskedFill] mask must be bool; received ${mask.dtype}. Compare it, e.g. notEqual(mask, 0).`);
  }
  if (typeof value !== "number") {
    throw new OptionError(`[maskedFill] value must be a number; received ${typeof value}.`);
  }
  if (!sameShape(broadcastShapes("maskedFill", x.shape, mask.shape), x.shape)) {
    throw new ShapeError(
      `[maskedFill] mask ${formatShape(mask.shape)} doesn't broadcast to x ${formatShape(x.shape)}.`,
    );
  }
  return scope(() => where(mask, value, x));
}

/** Keeps the elements with `column − row` on one side of `k`. */
function triangle(name: string, x: Tensor, k: number, keeps: typeof lessEqual): Tensor {
  checkTensor(name, "x", x);
  if (x.rank < 2) throw new ShapeError(`[${name}] expected x […, M, N]; received ${formatShape(x.shape)}.`);
  if (!Number.isSafeInteger(k)) throw new OptionError(`[${name}] k must be an integer; received ${k}.`);
  return scope(() => {
    const { device } = x;
    const [m, n] = [x.shape.at(-2)!, x.shape.at(-1)!];
    const limit = Math.max(-m, Math.min(n, k)); // beyond these all or nothing is kept
    const kept = keeps(arange(n, { device }), unsqueeze(arange(limit, limit + m, { device }), 1));
    return where(kept, x, 0);
  });
}

/** The upper triangles of the matrices in the last two axes, `x[…, i, j]` where `j − i ≥ k`, else 0. */
export function triu(x: Tensor, k = 0): Tensor {
  return triangle("triu", x, k, greaterEqual);
}

/** The lower triangles of the matrices in the last two axes, `x[…, i, j]` where `j − i ≤ k`, else 0. */
export function tril(x: Tensor, k = 0): Tensor {
  return triangle("tril", x, k, lessEqual);
}
