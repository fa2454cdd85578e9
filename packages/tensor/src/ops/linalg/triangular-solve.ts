import { engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../../autograd.js";
import { scope } from "../../scope.js";
import { broadcastShapes, formatShape, sameShape } from "../../shape.js";
import { Tensor } from "../../tensor.js";
import { checkFloating, contiguous } from "../arguments.js";
import { tril, triu } from "../masks.js";
import { matmul } from "../matmul.js";
import { expand } from "../views.js";
import { checkMatrices, checkSquare } from "./arguments.js";

export interface TriangularSolveOptions {
  /** `l` is an upper triangle; default a lower one. */
  upper?: boolean;
  /** Solve with `lᵀ`; default with `l`. */
  transpose?: boolean;
  /** `l` stands left of `x`, the default; false: right. */
  left?: boolean;
}

const triangularSolveOp = defineOp<Required<TriangularSolveOptions>>({
  name: "triangularSolve",
  inputNames: ["l", "b"],
  forward(context, [l, b], { upper, transpose, left }) {
    const [triangle, sides] = [contiguous(l!), contiguous(b!)];
    const x = Tensor.allocate(b!.dtype, b!.shape);
    engine().op.triangularSolve(triangle.handle, sides.handle, upper, transpose, left, x.handle);
    context.save(l!, x);
    return x;
  },
  // db solves the transposed system for dx, and dl = −db xᵀ (l x = b), transposed where l is, within the triangle.
  backward({ needs, saved: [l, x], options }, dx) {
    const { upper, transpose, left } = options;
    const db = triangularSolve(l!, dx, { ...options, transpose: !transpose });
    if (!needs[0]) return [null, db];
    const [a, c] = transpose ? [x!, db] : [db, x!];
    const product = left ? matmul(a, c.T) : matmul(c.T, a);
    return [(upper ? triu : tril)(product.neg()), needs[1] ? db : null];
  },
});

/**
 * Solves triangular systems: `l x = b`, `lᵀ x = b`, or with `left: false` `x l = b`, `x lᵀ = b`. Only the triangle that is named is read. A
 * zero on the diagonal gives infinities or NaN.
 *
 * @param l - `[…, N, N]`, float32 or float64
 * @param b - `[…, N, K]`, or `[…, K, N]` with `left: false`; leading axes broadcast
 * @returns `x`, of the shape of `b` with the leading axes of both
 * @throws {ShapeError} if `l` isn't square or the sizes don't fit
 */
export function triangularSolve(l: Tensor, b: Tensor, options: TriangularSolveOptions = {}): Tensor {
  const { upper = false, transpose = false, left = true } = options;
  checkSquare("triangularSolve", "l", l);
  checkMatrices("triangularSolve", "b", b);
  checkFloating("triangularSolve", { l, b });
  const n = l.shape.at(-1)!;
  if (b.shape.at(left ? -2 : -1) !== n) {
    const form = left ? `[…, ${n}, K]` : `[…, K, ${n}]`;
    throw new ShapeError(
      `[triangularSolve] b must be ${form} for l ${formatShape(l.shape)}; received ${formatShape(b.shape)}.`,
    );
  }
  const lead = broadcastShapes("triangularSolve", l.shape.slice(0, -2), b.shape.slice(0, -2));
  const broadcast = (x: Tensor) => {
    const shape = [...lead, ...x.shape.slice(-2)];
    return sameShape(x.shape, shape) ? x : expand(x, shape);
  };
  return scope(() => triangularSolveOp([broadcast(l), broadcast(b)], { upper, transpose, left }));
}
