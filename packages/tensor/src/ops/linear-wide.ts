import { Activation, engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import type { DType } from "../dtype.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating } from "./arguments.js";
import { sub } from "./binary.js";
import { widened } from "./cast.js";
import { clone } from "./clone.js";
import { copyInto } from "./creation.js";
import { linear } from "./linear.js";
import { matrix } from "./matmul.js";
import { sum } from "./reduce.js";
import { slice } from "./slice.js";
import { isFinite as isFiniteNumber } from "./unary.js";
import { expand, reshape, transpose } from "./views.js";
import { where } from "./where.js";

/** `a · b` of bfloat16 matrices, summed up in float32 and rounded to `dtype`. */
function product(a: Tensor, b: Tensor, dtype: DType): Tensor {
  const out = Tensor.allocate(dtype, [a.shape[0]!, b.shape[1]!]);
  engine().op.matmul(matrix(a).handle, matrix(b).handle, null, Activation.none, null, out.handle);
  return out;
}

/** bfloat16 has a third of the digits of float32. */
const parts = 3;

/**
 * float32 `[N, O]` as bfloat16 `[N, 3 O]`: the numbers, what rounding took from them, and what it took from that. Of an infinite one rounding takes nothing:
 * their difference is no number, and one that is no number would make the infinite sum into which it goes none.
 */
function inParts(x: Tensor): Tensor {
  const [N, O] = x.shape as [number, number];
  const out = Tensor.allocate("bfloat16", [N, parts * O]);
  let rest = x;
  for (let i = 0; i < parts; i++) {
    const part = copyInto(slice(out, 1, i * O, (i + 1) * O), rest);
    if (i + 1 === parts) break;
    const taken = part.astype("float32");
    rest = where(isFiniteNumber(taken), sub(rest, taken), 0);
  }
  return out;
}

const linearWideOp = defineOp<undefined>({
  name: "linearWide",
  forward(context, [x, weight]) {
    context.save(x!, weight!);
    return product(x!, transpose(weight!), "float32");
  },
  backward({ needs, saved: [x, weight] }, dout) {
    const [O, I] = weight!.shape as [number, number];
    const slopes = inParts(dout);
    const repeated = () => reshape(clone(expand(weight!, [parts, O, I])), [parts * O, I]);
    const dweight = () => sum(reshape(product(transpose(slopes), x!, "float32"), [parts, O, I]), { axis: 0 });
    return [needs[0] ? product(slopes, repeated(), "bfloat16") : null, needs[1] ? dweight().astype("bfloat16") : null];
  },
});

/**
 * A fully connected layer whose result keeps the digits of its sums: as `linear` of both in float32, or wider, but bfloat16 arrays are read as
 * they are. Gradients take the slope with all its digits, too; one beyond the largest number of bfloat16 counts as infinite. They are infinite or NaN where
 * those of `linear` are, and NaN where an infinite weight or number of `x` makes those infinite.
 *
 * @param x - `[N, I]`
 * @param weight - `[O, I]`, of the dtype of `x`
 * @returns `[N, O]`, float32, or float64 of float64
 * @throws {ShapeError} if the sizes don't fit
 *
 * @example
 * const scores = softmax(linearWide(x, router)); // no two experts are equal but by chance
 */
export function linearWide(x: Tensor, weight: Tensor): Tensor {
  checkFloating("linearWide", { x, weight });
  if (x.rank !== 2 || weight.rank !== 2 || x.shape[1] !== weight.shape[1]) {
    throw new ShapeError(
      `[linearWide] expected x [N, I] and weight [O, I]; received ${formatShape(x.shape)} and ${formatShape(weight.shape)}.`,
    );
  }
  if (x.dtype === "bfloat16" && x.size > 0 && weight.size > 0) return linearWideOp([x, weight], undefined);
  return linear(widened(x), widened(weight));
}
