/** The rotary tables of a model, and which of their rows a forward pass reads. */
import {
  concat,
  type Device,
  embedding,
  keep,
  type RopeAngles,
  rope,
  ropeTables,
  scope,
  slice,
  type Tensor,
} from "@llmeff/tensor";
import type { ResolvedConfig } from "../config.js";

/** Consecutive positions of a sequence. */
export interface PositionRange {
  start: number;
  length: number;
}

/** Angles of the tokens of a forward pass, and where keys are kept unturned, those of all positions of each sequence up to its last. */
export interface Angles {
  own: RopeAngles;
  keys: readonly RopeAngles[] | undefined;
}

/** Heads `[B, T, H, D]` turned by their positions, if positions are rotary. */
export function turned(heads: Tensor, angles: RopeAngles | undefined): Tensor {
  return angles ? rope(heads, angles.cos, angles.sin, { interleaved: angles.interleaved ?? false }) : heads;
}

/** Rows `from … to − 1` of the tables. */
export function rowsOf({ cos, sin, interleaved }: RopeAngles, from: number, to: number): RopeAngles {
  return { cos: slice(cos, 0, from, to), sin: slice(sin, 0, from, to), interleaved: interleaved ?? false };
}

function joinedAngles(parts: readonly RopeAngles[]): RopeAngles {
  if (parts.length === 1) return parts[0]!;
  return { ...parts[0]!, cos: concat(parts.map(({ cos }) => cos)), sin: concat(parts.map(({ sin }) => sin)) };
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

  /**
   * Angles for the tokens of a pass whose parameters are like `table`; undefined where nothing is turned.
   *
   * @param ranges - the positions of its sequences, whose tokens follow one another
   * @param positions - int32 `[T]`, the same as numbers; needed for more than one sequence
   */
  angles(table: Tensor, ranges: readonly PositionRange[], positions?: Tensor): Angles | undefined {
    if (this.config.positions === "learned" || this.config.rotaryDim === 0) return undefined;
    const dtype = table.dtype === "float64" ? "float64" : "float32";
    const upTo = ({ start, length }: PositionRange) => this.#ofLength(start + length, dtype, table.device);
    if (keepsKeysUnturned(this.config)) {
      const tables = ranges.map(upTo);
      const own = ranges.map(({ start, length }, i) => rowsOf(tables[i]!, start, start + length));
      const keys = ranges.map(({ start, length }, i) => rowsOf(tables[i]!, 0, start + length));
      return { own: joinedAngles(own), keys };
    }
    const [first] = ranges as [PositionRange, ...PositionRange[]];
    const end = ranges.reduce((most, { start, length }) => Math.max(most, start + length), 0);
    const tables = this.#ofLength(end, dtype, table.device);
    const own =
      positions === undefined
        ? rowsOf(tables, first.start, first.start + first.length)
        : { ...tables, cos: embedding(tables.cos, positions), sin: embedding(tables.sin, positions) };
    return { own, keys: undefined };
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
    const known = longest?.cos.shape[0] ?? 0;
    const room = Math.min(most, Math.max(length, 2 * known, firstPositions));
    const tables = keep(scope(() => this.#grown(longest, this.#make(room - known, dtype, device, known))));
    this.#tables.set(key, [...made, tables]);
    return tables;
  }

  /** What is known, with further rows behind it. */
  #grown(known: RopeAngles | undefined, further: RopeAngles): RopeAngles {
    return known === undefined ? further : joinedAngles([known, further]);
  }

  #make(length: number, dtype: "float32" | "float64", device: Device, start = 0): RopeAngles {
    const { rotaryDim, ropeBase: base, ropeScaling, ropeInterleaved: interleaved } = this.config;
    const scaling = ropeScaling === undefined ? {} : { scaling: ropeScaling };
    return { ...ropeTables(length, rotaryDim, { base, ...scaling, start, dtype, device }), interleaved };
  }

  dispose(): void {
    for (const { cos, sin } of [...this.#tables.values()].flat()) {
      cos.dispose();
      sin.dispose();
    }
    this.#tables.clear();
  }
}
