import { OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkFloating, checkRank } from "./arguments.js";
import type { AttentionPart } from "./attention.js";
import { add, div, equal, maximum, mul, sub } from "./binary.js";
import { astype } from "./cast.js";
import { zerosLike } from "./creation.js";
import { sum } from "./reduce.js";
import { exp, log } from "./unary.js";
import { reshape, transpose } from "./views.js";
import { where } from "./where.js";

const total = (terms: readonly Tensor[]): Tensor => terms.reduce((a, b) => add(a, b));

/** `[B, H, T]` as a factor of `[B, T, H, Dv]`. */
function byRow(weight: Tensor): Tensor {
  const [B, H, T] = weight.shape as [number, number, number];
  return reshape(transpose(weight, 1, 2), [B, T, H, 1]);
}

/** Where `x` is `value`, `instead`. */
function replace(x: Tensor, value: number, instead: number): Tensor {
  return where(equal(x, value), instead, x);
}

/** The outputs first, then the log-sum-exps. */
const mergeOp = defineOp<undefined, readonly [Tensor, Tensor]>({
  name: "mergeAttention",
  forward(context, inputs) {
    const outs = inputs.slice(0, inputs.length / 2);
    const lses = inputs.slice(outs.length);
    // A query that no part has keys for has maximum −∞, and weights exp(−∞) rather than exp(−∞ + ∞).
    const shift = replace(
      lses.reduce((a, b) => maximum(a, b)),
      Number.NEGATIVE_INFINITY,
      0,
    );
    const shares = lses.map((lse) => exp(sub(lse, shift)));
    const whole = total(shares);
    const weights = shares.map((share) => div(share, replace(whole, 0, 1)));
    const { dtype } = lses[0]!;
    const merged = astype(total(outs.map((out, i) => mul(astype(out, dtype), byRow(weights[i]!)))), outs[0]!.dtype);
    context.save(...outs, ...weights, merged);
    return [merged, add(shift, log(whole))];
  },
  /** `d out_i = w_i dout` and `d lse_i = w_i (⟨dout, out_i − out⟩ + dlse)`, where `w_i = exp(lse_i − lse)`. */
  backward({ saved }, [dout, dlse]) {
    const count = (saved.length - 1) / 2;
    const weights = saved.slice(count, 2 * count);
    const merged = saved[2 * count]!;
    const { dtype } = weights[0]!;
    const upstream = astype(dout ?? zerosLike(merged), dtype);
    const douts = weights.map((weight) => astype(mul(upstream, byRow(weight)), merged.dtype));
    const dlses = weights.map((weight, i) => {
      const change = sub(astype(saved[i]!, dtype), astype(merged, dtype));
      const slope = transpose(sum(mul(upstream, change), { axis: 3 }), 1, 2);
      return mul(weight, dlse === null ? slope : add(slope, dlse));
    });
    return [...douts, ...dlses];
  },
});

/**
 * Attention over several disjoint sets of keys, from that over each: `lse = log Σ_i exp(lse_i)`, `out = Σ_i exp(lse_i − lse) out_i`.
 *
 * The sets may be blocks of a cache or the keys of other processes (ring attention). A query without keys in a part takes nothing from it.
 *
 * @param parts - as from `attentionWithLse`, of equal shapes
 * @throws {ShapeError} if the shapes differ
 *
 * @example
 * const early = attentionWithLse(q, k.slice(1, 0, 8), v.slice(1, 0, 8), { qOffset: 8 });
 * const late = attentionWithLse(q, k.slice(1, 8), v.slice(1, 8), { qOffset: 0 });
 * const { out } = mergeAttention([early, late]); // attention(q, k, v, { qOffset: 8 })
 */
export function mergeAttention(parts: readonly AttentionPart[]): AttentionPart {
  const where = "mergeAttention";
  if (!Array.isArray(parts) || parts.length === 0) {
    throw new OptionError(`[${where}] expected at least one part { out, lse }; received none.`);
  }
  const [first] = parts as [AttentionPart];
  for (const [i, { out, lse }] of parts.entries()) {
    checkFloating(where, { out: first.out, [`parts[${i}].out`]: out });
    checkFloating(where, { lse: first.lse, [`parts[${i}].lse`]: lse });
    checkRank(where, `parts[${i}].out`, out, 4, "[B, T, H, Dv]");
    const [B, T, H] = out.shape as [number, number, number];
    if (!sameShape(out.shape, first.out.shape) || !sameShape(lse.shape, [B, H, T])) {
      throw new ShapeError(
        `[${where}] every out must be [B, T, H, Dv] and every lse [B, H, T] of the same sizes; parts[0] has ${formatShape(first.out.shape)} and ${formatShape(first.lse.shape)}, parts[${i}] ${formatShape(out.shape)} and ${formatShape(lse.shape)}.`,
      );
    }
  }
  const [out, lse] = mergeOp([...parts.map((part) => part.out), ...parts.map((part) => part.lse)], undefined);
  return { out, lse };
}
