import { DTypeError, engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import type { DeviceChoice } from "../device.js";
import { accumulationDType } from "../dtype.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkCount, checkFloating, checkRank, contiguous, rows } from "./arguments.js";
import { clone } from "./clone.js";
import { tensor } from "./creation.js";
import { type RopeFrequencyOptions, ropeFrequencies } from "./rope-frequencies.js";

export interface RopeOptions {
  /** Pairs (2i, 2i+1) as in the original paper, instead of (i, i + R/2) as in Hugging Face's Llama; default false. */
  interleaved?: boolean;
}

/** The angles of positions, as `ropeTables` makes them, and how channels pair up. */
export interface RopeAngles extends RopeOptions {
  /** `[T, R/2]` */
  cos: Tensor;
  /** `[T, R/2]` */
  sin: Tensor;
}

/** `x` turned by the angles of contiguous tables, or back if `inverse`. @internal */
export function turn(x: Tensor, { cos, sin, interleaved = false }: RopeAngles, inverse: boolean): Tensor {
  const out = Tensor.allocate(x.dtype, x.shape);
  engine().op.rope(rows(x).handle, cos.handle, sin.handle, interleaved, inverse, out.handle);
  return out;
}

const ropeOp = defineOp<boolean>({
  name: "rope",
  inputNames: ["x", "cos", "sin"],
  forward(context, [x, ...tables], interleaved) {
    const [cos, sin] = tables.map(contiguous) as [Tensor, Tensor];
    context.save(cos, sin);
    return turn(x!, { cos, sin, interleaved }, false);
  },
  backward({ saved: [cos, sin], options: interleaved }, dout) {
    return [turn(dout, { cos: cos!, sin: sin!, interleaved }, true), null, null];
  },
});

/**
 * Rotary position embedding (Su et al. 2021): turns each pair of channels of row `t` by the angle of row `t` of the tables.
 *
 * @param x - `[B, T, H, D]`
 * @param cos - `[T, R/2]`, constants as from `ropeTables`, float64 for float64, else float32; `R ≤ D` channels are turned, the others kept
 * @param sin - `[T, R/2]`
 * @returns `[B, T, H, D]`
 */
export function rope(x: Tensor, cos: Tensor, sin: Tensor, options: RopeOptions = {}): Tensor {
  checkFloating("rope", { x });
  checkRank("rope", "x", x, 4, "[B, T, H, D]");
  checkAngles("rope", "x", x, cos, sin);
  if (cos.size === 0) return clone(x); // no channel is turned
  return ropeOp([x, cos, sin], options.interleaved ?? false);
}

/** Tables that turn `x`, `[B, T, H, D]`. @internal */
export function checkAngles(where: string, name: string, x: Tensor, cos: Tensor, sin: Tensor): void {
  checkFloating(where, { cos, sin });
  const precise = accumulationDType(x.dtype);
  if (cos.dtype !== precise) {
    throw new DTypeError(
      `[${where}] tables for ${name} ${x.dtype} must be ${precise}; received ${cos.dtype}. Use astype().`,
    );
  }
  for (const table of [cos, sin]) {
    if (table.rank !== 2 || table.shape[0] !== x.shape[1] || 2 * table.shape[1]! > x.shape[3]!) {
      throw new ShapeError(
        `[${where}] tables must be [T, R/2] with R ≤ D for ${name} [B, T, H, D]; received ${formatShape(table.shape)} for ${formatShape(x.shape)}.`,
      );
    }
  }
  if (cos.shape[1] !== sin.shape[1]) {
    throw new ShapeError(
      `[${where}] tables differ: cos is ${formatShape(cos.shape)} and sin is ${formatShape(sin.shape)}.`,
    );
  }
}

export interface RopeTableOptions extends Omit<RopeFrequencyOptions, "length"> {
  /** Position of the first row; default 0. */
  start?: number;
  dtype?: "float32" | "float64";
  /** Default that of `tensor`. */
  device?: DeviceChoice | undefined;
}

/**
 * The cosines and sines of `position · frequency`, times the attention factor, computed in double precision: `cos` and `sin` are
 * `[positions, dim/2]`. With `dynamic` scaling they are those of a sequence that ends with the last row.
 *
 * @throws {OptionError} if an option doesn't fit, also of the scaling
 */
export function ropeTables(
  positions: number,
  dim: number,
  options: RopeTableOptions = {},
): { cos: Tensor; sin: Tensor } {
  const { start = 0, dtype = "float32", device, ...angles } = options;
  checkCount("ropeTables", "positions", positions);
  checkCount("ropeTables", "start", start);
  const { frequencies, attentionFactor } = ropeFrequencies(dim, { ...angles, length: start + positions });
  const size = positions * frequencies.length;
  const [cos, sin] = dtype === "float64" ? pairOf(Float64Array, size) : pairOf(Float32Array, size);
  writeTables({ cos, sin }, start, frequencies, attentionFactor);
  const shape = [positions, frequencies.length];
  return { cos: tensor(cos, { shape, dtype, device }), sin: tensor(sin, { shape, dtype, device }) };
}

function pairOf<T>(Values: new (size: number) => T, size: number): [T, T] {
  return [new Values(size), new Values(size)];
}

interface Waves {
  cos: Float32Array | Float64Array;
  sin: Float32Array | Float64Array;
}

/** Positions from multiples of it on share the angles of their offsets. */
const blockPositions = 4096;

/**
 * Rows from position `start` on. Cosines and sines of a sum follow from those of its terms, a block's first position and the offset in the block,
 * in a fraction of the time that functions of large arguments take: of ten million positions that is the difference between seconds and most of a minute.
 */
function writeTables({ cos, sin }: Waves, start: number, frequencies: Float64Array, amplitude: number): void {
  const half = frequencies.length;
  const end = half === 0 ? start : start + cos.length / half;
  const blockStart = start - (start % blockPositions);
  const offsets = Math.min(blockPositions, end - blockStart);
  const [offsetCos, offsetSin] = pairOf(Float64Array, half * offsets);
  for (let i = 0; i < half; i++) {
    for (let offset = 0; offset < offsets; offset++) {
      offsetCos[i * offsets + offset] = Math.cos(offset * frequencies[i]!);
      offsetSin[i * offsets + offset] = Math.sin(offset * frequencies[i]!);
    }
  }
  for (let first = blockStart; first < end; first += blockPositions) {
    const [from, to] = [Math.max(first, start), Math.min(first + blockPositions, end)];
    for (let i = 0; i < half; i++) {
      const firstCos = amplitude * Math.cos(first * frequencies[i]!);
      const firstSin = amplitude * Math.sin(first * frequencies[i]!);
      for (let position = from; position < to; position++) {
        const at = (position - start) * half + i;
        const c = offsetCos[i * offsets + position - first]!;
        const s = offsetSin[i * offsets + position - first]!;
        cos[at] = firstCos * c - firstSin * s;
        sin[at] = firstSin * c + firstCos * s;
      }
    }
  }
}
