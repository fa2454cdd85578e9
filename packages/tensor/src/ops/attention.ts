import { engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { accumulationDType } from "../dtype.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkCount, checkEqual, checkFinite, checkFloating, checkRank, contiguous, rows } from "./arguments.js";
import { zeros } from "./creation.js";

export interface AttentionOptions {
  /** Multiplies the logits; default `1 / √D`. */
  scale?: number;
  /** A query sees no later key; default true. */
  causal?: boolean;
  /** Keys looked back on, the own position included; default all. */
  window?: number;
  /** Position of the first query among the keys; default `S − T`, so that the last query is at the last key. */
  qOffset?: number;
  /** Logits become `softcap · tanh(logits / softcap)`; default 0, off. */
  softcap?: number;
}

type Settings = Required<AttentionOptions>;

const attentionOp = defineOp<Settings>({
  name: "attention",
  forward(context, inputs, { scale, causal, window, qOffset, softcap }) {
    const [q, k, v] = inputs.map(rows) as [Tensor, Tensor, Tensor];
    const [B, T, H] = q.shape as [number, number, number];
    const out = Tensor.allocate(q.dtype, [B, T, H, v.shape[3]!]);
    const lse = Tensor.allocate(accumulationDType(q.dtype), [B, H, T]);
    engine().op.attention(
      q.handle,
      k.handle,
      v.handle,
      scale,
      causal,
      window,
      qOffset,
      softcap,
      out.handle,
      lse.handle,
    );
    context.save(q, k, v, out, lse);
    return out;
  },
  backward({ saved: [q, k, v, out, lse], options: { scale, causal, window, qOffset, softcap } }, dout) {
    const [dq, dk, dv] = [q, k, v].map((x) => Tensor.allocate(x!.dtype, x!.shape)) as [Tensor, Tensor, Tensor];
    engine().op.attentionGrad(
      contiguous(dout).handle,
      q!.handle,
      k!.handle,
      v!.handle,
      out!.handle,
      lse!.handle,
      scale,
      causal,
      window,
      qOffset,
      softcap,
      dq.handle,
      dk.handle,
      dv.handle,
    );
    return [dq, dk, dv];
  },
});

/** A window of an attention: absent is unlimited; 0, negative and fractional ones are mistakes. @internal */
export function checkedWindow(where: string, name: string, window: number | undefined): number {
  if (window === undefined) return 0;
  if (!Number.isSafeInteger(window) || window <= 0) {
    throw new OptionError(
      `[${where}] ${name} must be a positive integer; received ${window}. Leave it out for an unlimited window.`,
    );
  }
  return window;
}

/** Query heads share key/value heads in groups of equal size. @internal */
export function checkHeads(where: string, heads: number, kvHeads: number): void {
  if (kvHeads === 0 || heads % kvHeads !== 0) {
    throw new ShapeError(
      `[${where}] the number of query heads must be a multiple of that of key/value heads; received ${heads} and ${kvHeads}.`,
    );
  }
}

/**
 * Scaled dot-product attention, computed tile by tile: no `[T, S]` array exists.
 *
 * `out[b,t,h,:] = Σ_s softmax_s(scale · q[b,t,h,:]·k[b,s,h/g,:]) v[b,s,h/g,:]`, with `g = H / K`; causal: `s ≤ i`, window: `i − window < s`,
 * where `i = qOffset + t`.
 *
 * @param q - `[B, T, H, D]`
 * @param k - `[B, S, K, D]`; `H` must be a multiple of `K` (grouped queries)
 * @param v - `[B, S, K, Dv]`
 * @returns `[B, T, H, Dv]`
 * @throws {ShapeError} if shapes don't fit or the head counts don't divide
 * @see arXiv:1706.03762 eq. 1
 *
 * @example
 * const out = attention(q, k, v, { window: 512 });
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const where = "attention";
  checkFloating(where, { q, k, v });
  checkRank(where, "q", q, 4, "[B, T, H, D]");
  checkRank(where, "k", k, 4, "[B, S, K, D]");
  checkRank(where, "v", v, 4, "[B, S, K, Dv]");
  const shapes = { q, k, v };
  checkEqual(where, "batch sizes of q and k", q.shape[0]!, k.shape[0]!, shapes);
  checkEqual(where, "batch sizes of k and v", k.shape[0]!, v.shape[0]!, shapes);
  checkEqual(where, "lengths of k and v", k.shape[1]!, v.shape[1]!, shapes);
  checkEqual(where, "heads of k and v", k.shape[2]!, v.shape[2]!, shapes);
  checkEqual(where, "head sizes of q and k", q.shape[3]!, k.shape[3]!, shapes);
  checkHeads(where, q.shape[2]!, k.shape[2]!);
  if (q.shape[3] === 0)
    throw new ShapeError(`[${where}] the head size must be positive; q is ${formatShape(q.shape)}.`);
  const { scale = 1 / Math.sqrt(q.shape[3]!), causal = true, softcap = 0 } = options;
  const behind = k.shape[1]! - q.shape[1]!;
  const { qOffset = causal ? behind : Math.max(0, behind) } = options;
  checkFinite(where, "scale", scale);
  checkCount(where, "qOffset", qOffset, " It is the position of the first query among the keys (default S − T).");
  if (!(softcap >= 0 && Number.isFinite(softcap)))
    throw new OptionError(`[${where}] softcap must be finite and ≥ 0; received ${softcap}.`);
  const window = checkedWindow(where, "window", options.window);
  // A row without keys is zero, whatever the queries: kernels are not asked about empty arrays.
  if (k.shape[1] === 0) return zeros([...q.shape.slice(0, 3), v.shape[3]!], { dtype: q.dtype });
  return attentionOp([q, k, v], { scale, causal, window, qOffset, softcap });
}
