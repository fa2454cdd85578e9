/** Attention of the next position of several sequences, whose lengths the device alone needs to know: what a captured step of generation replays. */
import { engine, OptionError, ShapeError } from "@llmeff/native";
import { commonDevice, onDevice } from "../device.js";
import { scope } from "../scope.js";
import { formatShape } from "../shape.js";
import { currentTape } from "../tape.js";
import { rememberCallSite, Tensor } from "../tensor.js";
import { checkFloating, checkIds, contiguous, rows } from "./arguments.js";
import { checkShapes, settingsOf } from "./attention.js";
import type { CachedAttentionOptions } from "./cached-attention.js";
import { checkAngles, type RopeAngles } from "./rope.js";

/** Rows of keys and values of one sequence. */
export interface DecodeMemory {
  /** `[1, S, K, D]`, contiguous. */
  keys: Tensor;
  /** `[1, S, K, D]`, contiguous. */
  values: Tensor;
  /** Position of the first row; default 0. */
  offset?: number;
}

export interface DecodeAttentionOptions extends Omit<CachedAttentionOptions, "rope"> {
  /** Turns queries and keys first; a row of the tables for each sequence. */
  rope?: RopeAngles | undefined;
}

/** Channels of a head that the engine takes. */
const mostChannels = 256;

/**
 * Causal attention of one new position of each of several sequences over memory of its own, in which the new keys and values take their place:
 * `cachedAttention` for lengths that are values of a tensor, so that a captured step goes on as the sequences grow. It has no gradient.
 *
 * @param q - `[1, N, H, D]`, `D ≤ 256`
 * @param k - `[1, N, K, D]`
 * @param v - `[1, N, K, D]`
 * @param memories - of each sequence, changed in place
 * @param positions - int32 `[N]`: where the new tokens are in their sequences
 * @returns `[1, N, H, D]`
 * @throws {ShapeError} if shapes don't fit
 * @throws {OptionError} if a gradient is asked for
 * @throws {IndexOutOfRangeError} when values are read, if a memory has no row for a position
 *
 * @example
 * const memory = { keys: zeros([1, 512, 2, 64]), values: zeros([1, 512, 2, 64]) }; // with 40 positions so far
 * decodeAttention(q, k, v, [memory], tensor(Int32Array.of(40)));
 */
export function decodeAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  memories: readonly DecodeMemory[],
  positions: Tensor,
  options: DecodeAttentionOptions = {},
): Tensor {
  const where = "decodeAttention";
  checkShapes(where, q, k, v);
  checkMemories(where, k, v, memories, positions);
  const { rope, ...given } = options;
  if (rope !== undefined) checkAngles(where, "q", q, rope.cos, rope.sin);
  if (currentTape()?.needsOf(where, [q, k, v]) !== undefined) {
    throw new OptionError(`[${where}] it changes its memory in place and has no gradient. Use attention().`);
  }
  const { scale, window, softcap } = settingsOf(where, q, k, given);
  const device = commonDevice(where, [q, k, v, positions]);
  return onDevice(device, () =>
    scope(() => {
      const out = Tensor.allocate(q.dtype, q.shape);
      const turns = rope !== undefined && rope.cos.size > 0;
      rememberCallSite(
        engine().op.decodeAttention(
          rows(q).handle,
          rows(k).handle,
          rows(v).handle,
          memories.map(({ keys }) => keys.handle),
          memories.map(({ values }) => values.handle),
          memories.map(({ offset = 0 }) => offset),
          contiguous(positions).handle,
          turns ? contiguous(rope.cos).handle : null,
          turns ? contiguous(rope.sin).handle : null,
          rope?.interleaved ?? false,
          scale,
          window,
          softcap,
          out.handle,
        ),
      );
      return out;
    }),
  );
}

function checkMemories(
  where: string,
  k: Tensor,
  v: Tensor,
  memories: readonly DecodeMemory[],
  positions: Tensor,
): void {
  const [B, N, K, D] = k.shape as [number, number, number, number];
  checkIds(where, "positions", positions);
  if (B !== 1 || v.shape[3] !== D || D > mostChannels || memories.length !== N || N === 0) {
    throw new ShapeError(
      `[${where}] expected k and v [1, N, K, D] with D ≤ ${mostChannels} for the ${memories.length} memories, at least one; received ${formatShape(k.shape)} and ${formatShape(v.shape)}.`,
    );
  }
  if (positions.rank !== 1 || positions.shape[0] !== N) {
    throw new ShapeError(`[${where}] positions must be [${N}]; received ${formatShape(positions.shape)}.`);
  }
  for (const [i, { keys, values, offset = 0 }] of memories.entries()) {
    checkFloating(where, { k, keys, values });
    if (!Number.isSafeInteger(offset)) {
      throw new OptionError(`[${where}] memories[${i}].offset must be an integer; received ${offset}.`);
    }
    for (const [name, memory] of Object.entries({ keys, values })) {
      const [b, S, heads, channels] = memory.shape;
      if (memory.rank === 4 && b === 1 && S! > 0 && heads === K && channels === D && memory.isContiguous) continue;
      throw new ShapeError(
        `[${where}] memories[${i}].${name} must be contiguous [1, S, ${K}, ${D}]; received ${formatShape(memory.shape)}.`,
      );
    }
  }
}
