/** Depth × length grids of single needles, the picture that everyone knows (gkamradt's test), without a judge. */

import { requireInteger } from "../../require-integer.js";
import type { Sample } from "../../sample.js";
import type { SampleOptions } from "../sample-options.js";
import { type NiahMeta, type NiahParams, niah } from "./niah.js";

export interface DepthOptions {
  /** `linear` (default), or `sigmoid`: `100 / (1 + e^(-0.1 (d - 50)))` with both ends kept, closer at the ends. */
  spacing?: "linear" | "sigmoid";
}

/**
 * `count` depths in percent from 0 to 100.
 *
 * @example
 * needleDepths(5); // [0, 25, 50, 75, 100]
 */
export function needleDepths(count: number, options: DepthOptions = {}): number[] {
  requireInteger("needleDepths", "count", count, 2, 10_000);
  const { spacing = "linear" } = options;
  return Array.from({ length: count }, (_, i) => {
    const depth = (100 * i) / (count - 1);
    return spacing === "linear" || i === 0 || i === count - 1 ? depth : 100 / (1 + Math.exp(-0.1 * (depth - 50)));
  });
}

export interface GridOptions extends Omit<SampleOptions, "index" | "maxTokens"> {
  /** Budgets in tokens. */
  lengths: readonly number[];
  /** Percent; default 11 from 0 to 100. */
  depths?: readonly number[];
  /** Needles for each cell, each with its own key, value and filler; default 5. */
  perCell?: number;
  params?: Omit<NiahParams, "placement" | "keys">;
}

/**
 * The samples of a grid, cell by cell. Cells of one trial share index and so needle, question and filler: along a row only the length
 * changes, along a column only the depth.
 */
export function* needleGrid(options: GridOptions): Generator<Sample<string[], NiahMeta>> {
  const { lengths, depths = needleDepths(11), perCell = 5, params = {}, ...rest } = options;
  requireInteger("needleGrid", "perCell", perCell, 1, 1_000_000);
  for (const maxTokens of lengths) {
    for (const depth of depths) {
      for (let index = 0; index < perCell; index++) {
        yield niah({ ...rest, index, maxTokens }, { ...params, placement: { adjacent: depth / 100 } });
      }
    }
  }
}
