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

function turn(x: Tensor, cos: Tensor, sin: Tensor, interleaved: boolean, inverse: boolean): Tensor {
  const out = Tensor.allocate(x.dtype, x.shape);
  engine().op.rope(rows(x).handle, cos.handle, sin.handle, interleaved, inverse, out.handle);
  return out;
}

const ropeOp = defineOp<boolean>({
  name: "rope",
  inputNames: ["x", "cos", "sin"],
  forward(context, [x, cos, sin], interleaved) {
    const [c, s] = [contiguous(cos!), contiguous(sin!)];
    context.save(c, s);
    return turn(x!, c, s, interleaved, false);
  },
  backward: ({ saved: [cos, sin], options: interleaved }, dout) => [
    turn(dout, cos!, sin!, interleaved, true),
    null,
    null,
  ],
});

export interface RopeOptions {
  /** Pairs (2i, 2i+1) as in the original paper, instead of (i, i + R/2) as in Hugging Face's Llama; default false. */
  interleaved?: boolean;
}

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
  checkFloating("rope", { cos, sin });
  const precise = accumulationDType(x.dtype);
  if (cos.dtype !== precise) {
    throw new DTypeError(`[rope] tables for x ${x.dtype} must be ${precise}; received ${cos.dtype}. Use astype().`);
  }
  checkRank("rope", "x", x, 4, "[B, T, H, D]");
  for (const table of [cos, sin]) {
    if (table.rank !== 2 || table.shape[0] !== x.shape[1] || 2 * table.shape[1]! > x.shape[3]!) {
      throw new ShapeError(
        `[rope] tables must be [T, R/2] with R ≤ D for x [B, T, H, D]; received ${formatShape(table.shape)} for ${formatShape(x.shape)}.`,
      );
    }
  }
  if (cos.shape[1] !== sin.shape[1]) {
    throw new ShapeError(
      `[rope] tables differ: cos is ${formatShape(cos.shape)} and sin is ${formatShape(sin.shape)}.`,
    );
  }
  if (cos.size === 0) return clone(x); // no channel is turned
  return ropeOp([x, cos, sin], options.interleaved ?? false);
}

export interface RopeTableOptions extends Omit<RopeFrequencyOptions, "length"> {
  dtype?: "float32" | "float64";
  /** Default that of `tensor`. */
  device?: DeviceChoice | undefined;
}

/**
 * The cosines and sines of `position · frequency`, times the attention factor, computed in double precision: `cos` and `sin` are
 * `[positions, dim/2]`. With `dynamic` scaling they are those of a sequence of `positions`.
 *
 * @throws {OptionError} if an option doesn't fit, also of the scaling
 */
export function ropeTables(
  positions: number,
  dim: number,
  options: RopeTableOptions = {},
): { cos: Tensor; sin: Tensor } {
  const { dtype = "float32", device, ...angles } = options;
  checkCount("ropeTables", "positions", positions);
  const { frequencies, attentionFactor } = ropeFrequencies(dim, { ...angles, length: positions });
  const half = frequencies.length;
  const cos = new Float64Array(positions * half);
  const sin = new Float64Array(positions * half);
  for (const [i, frequency] of frequencies.entries()) {
    for (let position = 0; position < positions; position++) {
      cos[position * half + i] = attentionFactor * Math.cos(position * frequency);
      sin[position * half + i] = attentionFactor * Math.sin(position * frequency);
    }
  }
  const shape = [positions, half];
  return { cos: tensor(cos, { shape, dtype, device }), sin: tensor(sin, { shape, dtype, device }) };
}
