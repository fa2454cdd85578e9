import { engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { accumulationDType } from "../dtype.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkCount, checkEqual, checkFinite, checkFloating, checkRank, contiguous, rows } from "./arguments.js";
import { checkedWindow, checkHeads } from "./attention.js";

export interface SimplicialAttentionOptions {
  /** Multiplies the logits; default `1 / √D`. */
  scale?: number;
  /** A query sees no later position; default true. False needs unlimited windows. */
  causal?: boolean;
  /** Window of (k1, v1): positions looked back on, the own included; default unlimited. The paper uses 512. */
  w1?: number;
  /** Window of (k2, v2); default unlimited. The paper uses 32. */
  w2?: number;
  /** Added to every entry of k2 inside the op; default 0. */
  k2Bias?: number;
  /** Added to every entry of v2 inside the op; default 0. */
  v2Bias?: number;
  /** Absolute position of row 0 of q; default such that the last query is at the last row of (k1, v1). */
  qOffset?: number;
  /** Absolute position of row 0 of (k1, v1); default 0. */
  k1Offset?: number;
  /** Absolute position of row 0 of (k2, v2); default 0. */
  k2Offset?: number;
  /** `trilinear`: Σ_d q k1 k2; `determinant`: the rotation-invariant form of §5 of the paper; default trilinear. */
  form?: "trilinear" | "determinant";
}

type Settings = Required<SimplicialAttentionOptions>;

/** The scalar arguments of the kernel in its order. */
function scalars(s: Settings) {
  const { scale, causal, w1, w2, k2Bias, v2Bias, qOffset, k1Offset, k2Offset, form } = s;
  return [scale, causal, w1, w2, k2Bias, v2Bias, qOffset, k1Offset, k2Offset, form === "determinant"] as const;
}

const simplicialAttentionOp = defineOp<Settings>({
  name: "simplicialAttention",
  forward(context, inputs, settings) {
    const [q, k1, k2, v1, v2] = inputs.map(rows) as [Tensor, Tensor, Tensor, Tensor, Tensor];
    const [B, T, H] = q.shape as [number, number, number];
    const out = Tensor.allocate(q.dtype, [B, T, H, v1.shape[3]!]);
    const lse = Tensor.allocate(accumulationDType(q.dtype), [B, H, T]);
    engine().op.simplicialAttention(
      q.handle,
      k1.handle,
      k2.handle,
      v1.handle,
      v2.handle,
      ...scalars(settings),
      out.handle,
      lse.handle,
    );
    context.save(q, k1, k2, v1, v2, out, lse);
    return out;
  },
  backward({ saved: [q, k1, k2, v1, v2, out, lse], options }, dout) {
    const gradients = [q, k1, k2, v1, v2].map((x) => Tensor.allocate(x!.dtype, x!.shape));
    const [dq, dk1, dk2, dv1, dv2] = gradients.map((x) => x.handle) as [number, number, number, number, number];
    engine().op.simplicialAttentionGrad(
      contiguous(dout).handle,
      q!.handle,
      k1!.handle,
      k2!.handle,
      v1!.handle,
      v2!.handle,
      out!.handle,
      lse!.handle,
      ...scalars(options),
      dq,
      dk1,
      dk2,
      dv1,
      dv2,
    );
    return gradients;
  },
});

/** The rows that the windows of the queries reach must be among those given. */
function checkReach(
  where: string,
  side: 1 | 2,
  queries: [number, number],
  offset: number,
  rowsGiven: number,
  window: number,
): void {
  const [first, last] = queries;
  const lowest = window === 0 ? 0 : Math.max(0, first - window + 1);
  if (lowest < offset || last > offset + rowsGiven - 1) {
    throw new ShapeError(
      `[${where}] the queries are at positions ${first}..${last} and reach (k${side}, v${side}) at ${lowest}..${last}, ` +
        `but the rows given are ${offset}..${offset + rowsGiven - 1}. Check qOffset, k${side}Offset and w${side}.`,
    );
  }
}

/**
 * 2-simplicial attention: each query attends to pairs of positions.
 *
 * `a[j,k] = scale · Σ_d q[t,d] k1[j,d] k2[k,d]`, one softmax over all pairs `i − w1 < j ≤ i`, `i − w2 < k ≤ i`, and
 * `out[t] = Σ_jk softmax(a)[j,k] (v1[j] ∘ v2[k])`, where `i = qOffset + t`. No array over pairs exists.
 *
 * @param q - `[B, T, H, D]`
 * @param k1 - `[B, S1, K, D]`; `H` must be a multiple of `K` (grouped queries)
 * @param k2 - `[B, S2, K, D]`
 * @param v1 - `[B, S1, K, Dv]`
 * @param v2 - `[B, S2, K, Dv]`
 * @returns `[B, T, H, Dv]`
 * @throws {ShapeError} if shapes don't fit or a window reaches outside of the rows given
 * @throws {OptionError} for a window that is not a positive integer, or windows without causality
 * @see arXiv:2507.02754 eq. 5–7
 *
 * @example
 * const out = simplicialAttention(q, k1, k2, v1, v2, { w1: 512, w2: 32 });
 */
export function simplicialAttention(
  q: Tensor,
  k1: Tensor,
  k2: Tensor,
  v1: Tensor,
  v2: Tensor,
  options: SimplicialAttentionOptions = {},
): Tensor {
  const where = "simplicialAttention";
  const shapes = { q, k1, k2, v1, v2 };
  checkFloating(where, shapes);
  checkRank(where, "q", q, 4, "[B, T, H, D]");
  checkRank(where, "k1", k1, 4, "[B, S1, K, D]");
  checkRank(where, "k2", k2, 4, "[B, S2, K, D]");
  checkRank(where, "v1", v1, 4, "[B, S1, K, Dv]");
  checkRank(where, "v2", v2, 4, "[B, S2, K, Dv]");
  for (const [name, x] of Object.entries({ k1, k2, v1, v2 })) {
    checkEqual(where, `batch sizes of q and ${name}`, q.shape[0]!, x.shape[0]!, shapes);
    checkEqual(where, `heads of k1 and ${name}`, k1.shape[2]!, x.shape[2]!, shapes);
  }
  checkEqual(where, "head sizes of q and k1", q.shape[3]!, k1.shape[3]!, shapes);
  checkEqual(where, "head sizes of q and k2", q.shape[3]!, k2.shape[3]!, shapes);
  checkEqual(where, "head sizes of v1 and v2", v1.shape[3]!, v2.shape[3]!, shapes);
  checkEqual(where, "lengths of k1 and v1", k1.shape[1]!, v1.shape[1]!, shapes);
  checkEqual(where, "lengths of k2 and v2", k2.shape[1]!, v2.shape[1]!, shapes);
  checkHeads(where, q.shape[2]!, k1.shape[2]!);
  if (q.shape[3] === 0)
    throw new ShapeError(`[${where}] the head size must be positive; q is ${formatShape(q.shape)}.`);

  const { causal = true, k1Offset = 0, k2Offset = 0, k2Bias = 0, v2Bias = 0, form = "trilinear" } = options;
  const w1 = checkedWindow(where, "w1", options.w1);
  const w2 = checkedWindow(where, "w2", options.w2);
  const { scale = 1 / Math.sqrt(q.shape[3]!), qOffset = k1Offset + k1.shape[1]! - q.shape[1]! } = options;
  for (const [name, value] of Object.entries({ scale, k2Bias, v2Bias })) checkFinite(where, name, value);
  for (const [name, value] of Object.entries({ qOffset, k1Offset, k2Offset })) checkCount(where, name, value);
  if (form !== "trilinear" && form !== "determinant") {
    throw new OptionError(`[${where}] form must be "trilinear" or "determinant"; received ${JSON.stringify(form)}.`);
  }
  if (!causal && (w1 !== 0 || w2 !== 0)) {
    throw new OptionError(
      `[${where}] causal: false needs unlimited windows; received w1 ${w1 || "unlimited"} and w2 ${w2 || "unlimited"}.`,
    );
  }
  if (causal && q.shape[1]! > 0) {
    const queries: [number, number] = [qOffset, qOffset + q.shape[1]! - 1];
    checkReach(where, 1, queries, k1Offset, k1.shape[1]!, w1);
    checkReach(where, 2, queries, k2Offset, k2.shape[1]!, w2);
  } else if (!causal && q.size > 0 && (k1.shape[1] === 0 || k2.shape[1] === 0)) {
    throw new ShapeError(
      `[${where}] expected at least one row of keys; k1 is ${formatShape(k1.shape)}, k2 is ${formatShape(k2.shape)}.`,
    );
  }
  return simplicialAttentionOp([q, k1, k2, v1, v2], {
    scale,
    causal,
    w1,
    w2,
    k2Bias,
    v2Bias,
    qOffset,
    k1Offset,
    k2Offset,
    form,
  });
}
