import { DTypeError, engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { accumulationDType } from "../dtype.js";
import { formatShape, sameShape } from "../shape.js";
import { rememberCallSite, Tensor } from "../tensor.js";
import { checkFloating, checkIds, checkRank, rows } from "./arguments.js";
import { floorDivide, maximum } from "./binary.js";
import { filled } from "./creation.js";
import { gather } from "./gather.js";
import { reshape } from "./views.js";

function gatherSumKernel(x: Tensor, ids: Tensor, weights?: Tensor): Tensor {
  const shape = [ids.shape[0]!, x.shape[1]!];
  // Kernels are not asked about empty arrays.
  if (x.size === 0 || ids.size === 0) return filled(0, x.dtype, shape);
  const out = Tensor.allocate(x.dtype, shape);
  rememberCallSite(engine().op.gatherSum(rows(x).handle, ids.handle, weights?.handle ?? null, out.handle));
  return out;
}

const gatherSumOp = defineOp<undefined>({
  name: "gatherSum",
  inputNames: ["x", "ids", "inverse", "weights"],
  forward(context, [x, ids, inverse, weights]) {
    context.save(ids!, inverse!, ...(weights ? [weights, x!] : []));
    return gatherSumKernel(x!, ids!, weights);
  },
  backward({ needs, saved: [ids, inverse, weights, x] }, dout) {
    return [
      needs[0] ? gatherSumKernel(dout, termsOf(inverse!, ids!.shape[1]!), weights && namedBy(inverse!, weights)) : null,
      null,
      null,
      needs[3] ? weightSlopes(x!, ids!, dout, weights!.dtype) : null,
    ];
  },
});

/** The sums, of `k` terms each, that positions among all terms lie in; -1 stays. */
function termsOf(inverse: Tensor, k: number): Tensor {
  return k > 1 ? floorDivide(inverse, k) : inverse;
}

/** The weights at these positions, and some weight where there is none. */
function namedBy(inverse: Tensor, weights: Tensor): Tensor {
  if (weights.size === 0) return filled(0, weights.dtype, inverse.shape);
  const positions = reshape(maximum(inverse, 0), [inverse.size]);
  return reshape(gather(reshape(weights, [weights.size]), 0, positions), inverse.shape);
}

function weightSlopes(x: Tensor, ids: Tensor, dout: Tensor, dtype: Tensor["dtype"]): Tensor {
  if (x.size === 0) return filled(0, dtype, ids.shape);
  const dweights = Tensor.allocate(dtype, ids.shape);
  rememberCallSite(engine().op.gatherSumGrad(rows(x).handle, ids.handle, rows(dout).handle, dweights.handle));
  return dweights;
}

/**
 * Sums of rows by number, `out[n] = Σ_j weights[n, j] · x[ids[n, j]]`, in one pass; an id of -1 adds nothing. Tokens are copied to their experts
 * and the experts' results summed up for their tokens by it.
 *
 * Its gradient is such a sum too, by `inverse`: for each row of `x` the positions `n · k + j` at which `ids` names it. Both lists are given, so
 * that no gradient has to sort them; that they belong together isn't checked, and an inverse that isn't one gives a gradient that is wrong.
 *
 * @param x - `[R, C]`; bfloat16 and float16 are summed up in float32 and rounded once
 * @param ids - int32 `[N, k]`
 * @param inverse - int32 `[R, m]`, -1 where a row is named less than `m` times
 * @param weights - `[N, k]` of the dtype of `x`, or float32 with 16-bit rows; default all 1
 * @returns `[N, C]`
 * @throws {ShapeError} if the sizes don't fit
 * @throws {IndexOutOfRangeError} when the values are read, if an id is neither -1 nor a row of `x`
 *
 * @example
 * const swapped = tensor(Int32Array.of(1, 0), { shape: [2, 1] });
 * gatherSum(tensor([[1, 2], [3, 4]]), swapped, swapped); // [[3, 4], [1, 2]]
 */
export function gatherSum(x: Tensor, ids: Tensor, inverse: Tensor, weights?: Tensor): Tensor {
  checkFloating("gatherSum", { x });
  checkRank("gatherSum", "x", x, 2, "[R, C]");
  checkIds("gatherSum", "ids", ids);
  checkRank("gatherSum", "ids", ids, 2, "[N, k]");
  checkIds("gatherSum", "inverse", inverse);
  if (inverse.rank !== 2 || inverse.shape[0] !== x.shape[0]) {
    throw new ShapeError(`[gatherSum] inverse must be [${x.shape[0]}, m]; received ${formatShape(inverse.shape)}.`);
  }
  if (weights === undefined) return gatherSumOp([x, ids, inverse], undefined);
  checkFloating("gatherSum", { weights });
  if (weights.dtype !== x.dtype && weights.dtype !== accumulationDType(x.dtype)) {
    const allowed = [...new Set([x.dtype, accumulationDType(x.dtype)])].join(" or ");
    throw new DTypeError(`[gatherSum] weights must be ${allowed}; received ${weights.dtype}. Use astype().`);
  }
  if (!sameShape(weights.shape, ids.shape)) {
    throw new ShapeError(
      `[gatherSum] weights must be ${formatShape(ids.shape)}; received ${formatShape(weights.shape)}.`,
    );
  }
  return gatherSumOp([x, ids, inverse, weights], undefined);
}
