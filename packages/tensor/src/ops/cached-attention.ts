/** Attention of the next positions of sequences over what is kept of the earlier ones: a step of generation. */
import { engine, type Handle, OptionError, ShapeError } from "@llmeff/native";
import { commonDevice, onDevice } from "../device.js";
import { accumulationDType } from "../dtype.js";
import { scope } from "../scope.js";
import { formatShape } from "../shape.js";
import { currentTape } from "../tape.js";
import { Tensor } from "../tensor.js";
import { checkCount, checkFloating, contiguous, rows } from "./arguments.js";
import { type AttentionOptions, checkShapes, prefixOf, settingsOf, tablesOf } from "./attention.js";
import { sliceView } from "./slice.js";

/** A sequence, or a batch of sequences of one length: how many of the new positions are its, and what is kept of those before. */
export interface KeptRows {
  /** New positions. */
  length: number;
  /** Memory `[B, S, K, D]` of keys; the new ones are written into it. */
  keys: Tensor;
  /** Memory `[B, S, K, Dv]` of values. */
  values: Tensor;
  /** Rows kept before the new ones, which come behind them. */
  kept: number;
  /** Leading rows that every query sees. */
  prefix?: number;
}

export type CachedAttentionOptions = Pick<AttentionOptions, "scale" | "window" | "softcap" | "rope">;

/**
 * Causal attention of new positions over kept and new ones. Sequences of different lengths follow one another on the axis of positions, each with
 * memory of its own; the memory is changed in place, and with `rope` gets the keys as they are turned. It has no gradient.
 *
 * @param q - `[B, T, H, D]`; with several sequences `B` is 1
 * @param k - `[B, T, K, D]`
 * @param v - `[B, T, K, Dv]`
 * @param sequences - whose lengths add up to `T`
 * @returns `[B, T, H, Dv]`
 * @throws {ShapeError} if shapes don't fit, or a memory has no room for the new rows; nothing is written then
 * @throws {OptionError} if a gradient is asked for
 *
 * @example
 * const keys = zeros([1, 512, 2, 64]); // of a sequence with 40 positions so far
 * cachedAttention(q, k, v, [{ length: 1, keys, values, kept: 40 }]);
 */
export function cachedAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  sequences: readonly KeptRows[],
  options: CachedAttentionOptions = {},
): Tensor {
  const where = "cachedAttention";
  checkShapes(where, q, k, v);
  checkSequences(where, q, k, v, sequences);
  if (currentTape()?.needsOf(where, [q, k, v]) !== undefined) {
    throw new OptionError(`[${where}] it changes its memory in place and has no gradient. Use attention().`);
  }
  const device = commonDevice(where, [q, k, v]);
  return onDevice(device, () => scope(() => attendAll(where, [q, k, v].map(rows) as Heads, sequences, options)));
}

type Heads = [q: Tensor, k: Tensor, v: Tensor];

function attendAll(
  where: string,
  [q, k, v]: Heads,
  sequences: readonly KeptRows[],
  options: CachedAttentionOptions,
): Tensor {
  const { scale, window, softcap, interleaved } = settingsOf(where, q, k, options);
  const [cos, sin] = tablesOf(where, q, k, options.rope).map(contiguous);
  const { op } = engine();
  const [B, T, H] = q.shape as [number, number, number];
  const out = Tensor.allocate(q.dtype, [B, T, H, v.shape[3]!]);
  const [statistics, of] = [accumulationDType(q.dtype), (x: Tensor, at: number, n: number) => sliceView(x, 1, at, n)];
  /** Writes the new rows of a sequence behind its others. @returns its queries, turned if they are to be */
  const keep = (start: number, { length, keys, values, kept }: KeptRows): Tensor => {
    const [queries, newKeys, newValues] = [q, k, v].map((x) => of(x, start, length)) as [Tensor, Tensor, Tensor];
    const [keysTo, valuesTo] = [of(keys, kept, length).handle, of(values, kept, length).handle];
    if (cos === undefined || sin === undefined) {
      op.copy(newKeys.handle, keysTo);
      op.copy(newValues.handle, valuesTo);
      return queries;
    }
    const turned = Tensor.allocate(q.dtype, queries.shape);
    const angles = [cos, sin].map((table) => sliceView(table, 0, start, length).handle) as [Handle, Handle];
    const rowsOf = [queries.handle, newKeys.handle, newValues.handle] as const;
    op.ropeAndKeep(...rowsOf, ...angles, interleaved, turned.handle, keysTo, valuesTo);
    return turned;
  };
  let start = 0;
  for (const sequence of sequences) {
    const { length, keys, values, kept, prefix } = sequence;
    const queries = keep(start, sequence);
    op.attention(
      queries.handle,
      of(keys, 0, kept + length).handle,
      of(values, 0, kept + length).handle,
      null,
      null,
      prefixOf(where, prefix, true, queries)?.handle ?? null,
      scale,
      true,
      window,
      kept,
      softcap,
      of(out, start, length).handle,
      Tensor.allocate(statistics, [B, H, length]).handle,
    );
    start += length;
  }
  return out;
}

function checkSequences(where: string, q: Tensor, k: Tensor, v: Tensor, sequences: readonly KeptRows[]): void {
  const [B, T] = q.shape as [number, number];
  let total = 0;
  for (const [i, { length, keys, values, kept, prefix }] of sequences.entries()) {
    checkFloating(where, { k, keys, values });
    checkCount(where, `sequences[${i}].length`, length);
    checkCount(where, `sequences[${i}].kept`, kept);
    if (prefix !== undefined) checkCount(where, `sequences[${i}].prefix`, prefix);
    for (const [name, memory, like] of [
      ["keys", keys, k],
      ["values", values, v],
    ] as const) {
      const [b, S, heads, channels] = memory.shape as [number, number, number, number];
      const fits = memory.rank === 4 && b === B && heads === like.shape[2] && channels === like.shape[3];
      if (fits && kept + length <= S && memory.strides[3] === 1) continue;
      throw new ShapeError(
        `[${where}] sequences[${i}].${name} must be rows for [${B}, ${kept + length}, ${like.shape[2]}, ${like.shape[3]}] or more; received ${formatShape(memory.shape)}.`,
      );
    }
    total += length;
  }
  if (total !== T || k.shape[1] !== T || (B > 1 && sequences.length > 1)) {
    throw new ShapeError(
      `[${where}] the lengths of the sequences must add up to the ${T} positions of q ${formatShape(q.shape)} and k ${formatShape(k.shape)}, and with several of them B must be 1; received ${sequences.map(({ length }) => length).join(", ")}.`,
    );
  }
}
