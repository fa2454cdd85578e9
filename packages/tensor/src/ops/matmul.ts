import { Activation, engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { scope } from "../scope.js";
import { broadcastShapes, formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating } from "./arguments.js";
import { sumTo } from "./binary.js";
import { clone } from "./clone.js";
import { full } from "./creation.js";
import { expandView, reshape, transpose } from "./views.js";

/** A matrix whose rows or columns are contiguous: what kernels of products take. @internal */
export function matrix(x: Tensor): Tensor {
  const unit = (axis: number) => x.shape.at(axis) === 1 || x.strides.at(axis) === 1;
  return unit(-1) || unit(-2) ? x : clone(x);
}

/** How a product reads its second matrix, and what it does to its result on the way out. */
interface ProductOptions {
  bias?: Tensor | undefined;
  activation?: keyof typeof Activation | undefined;
  /** Receives what the activation is applied to; of the result's shape. */
  pre?: Tensor | undefined;
  /** The second matrix is `[…, N, K]`. */
  transposed?: boolean;
}

/** `activation(a · b + bias)` for checked arguments; leading axes broadcast. @internal */
export function matmulKernel(a: Tensor, b: Tensor, options: ProductOptions = {}): Tensor {
  const { bias, activation = "none", pre, transposed = false } = options;
  const lead = broadcastShapes("matmul", a.shape.slice(0, -2), b.shape.slice(0, -2));
  const [m, k, n] = [a.shape.at(-2)!, a.shape.at(-1)!, b.shape.at(transposed ? -2 : -1)!];
  // A sum of nothing is a product with zeros.
  if (k === 0) {
    const { dtype } = a;
    return matmulKernel(full([...lead, m, 1], 0, { dtype }), full([1, n], 0, { dtype }), { bias, activation, pre });
  }
  const out = Tensor.allocate(a.dtype, [...lead, m, n]);
  const left = expandView(matrix(a), [...lead, m, k]);
  const right = b.rank === 2 ? matrix(b) : expandView(matrix(b), [...lead, ...b.shape.slice(-2)]);
  const code = Activation[activation];
  const { matmul, matmulTransposed } = engine().op;
  (transposed ? matmulTransposed : matmul)(
    left.handle,
    right.handle,
    bias?.handle ?? null,
    code,
    pre?.handle ?? null,
    out.handle,
  );
  return out;
}

const matmulOp = defineOp<undefined>({
  name: "matmul",
  forward(context, [a, b]) {
    context.save(a!, b!);
    return matmulKernel(a!, b!);
  },
  backward({ needs, saved: [a, b], shapes }, dout) {
    return [
      needs[0] ? sumTo(matmulKernel(dout, transpose(b!)), shapes[0]!) : null,
      needs[1] ? sumTo(matmulKernel(transpose(a!), dout), shapes[1]!) : null,
    ];
  },
});

/**
 * Matrix product over the last two axes, `out[…, m, n] = Σ_k a[…, m, k] b[…, k, n]`; leading axes broadcast. A vector on the left is a
 * row, on the right a column, and its axis is absent from the result. Transposed views cost nothing.
 *
 * @param a - `[…, M, K]` or `[K]`; bfloat16 and float16 are summed up in float32 and rounded once
 * @param b - `[…, K, N]` or `[K]`
 * @returns `[…, M, N]`
 * @throws {ShapeError} if the inner dimensions differ
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  checkFloating("matmul", { a, b });
  if (a.rank === 0 || b.rank === 0)
    throw new ShapeError("[matmul] expected vectors or matrices; received a scalar. Use mul().");
  const inner = b.rank === 1 ? b.shape[0]! : b.shape.at(-2)!;
  if (a.shape.at(-1) !== inner) {
    const advice = b.rank >= 2 && a.shape.at(-1) === b.shape.at(-1) ? " Did you mean matmul(a, b.T)?" : "";
    throw new ShapeError(
      `[matmul] inner dimensions differ: a is ${formatShape(a.shape)} and b is ${formatShape(b.shape)} (${a.shape.at(-1)} ≠ ${inner}).${advice}`,
    );
  }
  if (a.rank >= 2 && b.rank >= 2) return matmulOp([a, b], undefined);
  return scope(() => {
    const left = a.rank === 1 ? reshape(a, [1, a.size]) : a;
    const right = b.rank === 1 ? reshape(b, [b.size, 1]) : b;
    const out = matmulOp([left, right], undefined);
    const shape = [
      ...out.shape.slice(0, -2),
      ...(a.rank === 1 ? [] : [out.shape.at(-2)!]),
      ...(b.rank === 1 ? [] : [out.shape.at(-1)!]),
    ];
    return reshape(out, shape);
  });
}
