/** The rotary tables of a model, and which of their rows a forward pass reads. */
import { type Device, keep, type RopeAngles, rope, ropeTables, slice, type Tensor } from "@llmeff/tensor";
import type { ResolvedConfig } from "../config.js";

/** Angles of the positions of a forward pass; `keys` are those of all positions up to its last where keys are kept unturned. */
export interface Angles {
  own: RopeAngles;
  keys: RopeAngles | undefined;
}

/** Heads `[B, T, H, D]` turned by their positions, if positions are rotary. */
export function turned(heads: Tensor, angles: RopeAngles | undefined): Tensor {
  return angles ? rope(heads, angles.cos, angles.sin, { interleaved: angles.interleaved ?? false }) : heads;
}

/** Rows `from … to − 1` of the tables. */
export function rowsOf({ cos, sin, interleaved }: RopeAngles, from: number, to: number): RopeAngles {
  return { cos: slice(cos, 0, from, to), sin: slice(sin, 0, from, to), interleaved: interleaved ?? false };
}

/**
 * Under `dynamic` scaling the frequencies depend on the length of the sequence, so that keys of a cache stay unturned and are turned anew at
 * each step (models.md §2.2).
 */
export function keepsKeysUnturned({ ropeScaling }: ResolvedConfig): boolean {
  return ropeScaling?.type === "dynamic";
}

/** Positions of the first tables of a model that may have more. */
const firstPositions = 1024;

export class RotaryTables {
  /**
   * By dtype and device, as long as the sequences so far have needed, each at least twice as long as the one before. The shorter ones stay: a
   * captured step goes on reading those that it was captured with.
   */
  readonly #tables = new Map<string, RopeAngles[]>();

  constructor(private readonly config: ResolvedConfig) {}

  /** Angles for positions `start … start + length − 1` of a model whose parameters are like `table`; undefined where nothing is turned. */
  angles(table: Tensor, start: number, length: number): Angles | undefined {
    const { positions, rotaryDim } = this.config;
    if (positions === "learned" || rotaryDim === 0) return undefined;
    const dtype = table.dtype === "float64" ? "float64" : "float32";
    const end = start + length;
    const tables = this.#ofLength(end, dtype, table.device);
    return {
      own: rowsOf(tables, start, end),
      keys: keepsKeysUnturned(this.config) ? rowsOf(tables, 0, end) : undefined,
    };
  }

  #ofLength(length: number, dtype: "float32" | "float64", device: Device): RopeAngles {
    const { maxSeqLen, ropeScaling: scaling } = this.config;
    const most = scaling?.type === "dynamic" ? Math.min(scaling.originalLength, maxSeqLen) : maxSeqLen;
    // Under dynamic scaling longer ones differ with every length: they live as long as the forward pass.
    if (length > most) return this.#make(length, dtype, device);
    const key = `${dtype} ${device}`;
    const made = this.#tables.get(key) ?? [];
    const longest = made.at(-1);
    if (longest !== undefined && longest.cos.shape[0]! >= length) return longest;
    const room = Math.max(length, 2 * (longest?.cos.shape[0] ?? firstPositions / 2));
    const tables = this.#make(Math.min(most, room), dtype, device);
    keep([tables.cos, tables.sin]);
    this.#tables.set(key, [...made, tables]);
    return tables;
  }

  #make(length: number, dtype: "float32" | "float64", device: Device): RopeAngles {
    const { rotaryDim, ropeBase: base, ropeScaling, ropeInterleaved: interleaved } = this.config;
    const scaling = ropeScaling === undefined ? {} : { scaling: ropeScaling };
    return { ...ropeTables(length, rotaryDim, { base, ...scaling, dtype, device }), interleaved };
  }

  dispose(): void {
    for (const { cos, sin } of [...this.#tables.values()].flat()) {
      cos.dispose();
      sin.dispose();
    }
    this.#tables.clear();
  }
}
