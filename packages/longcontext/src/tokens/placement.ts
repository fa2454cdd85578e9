/** Where relevant items stand among the units of filler. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";

/**
 * `uniform`: sorted uniform draws; `interspersed`: equal gaps; `{ adjacent: d }`: all together at depth `d`; `{ depths }`: one depth an item,
 * ascending. Depths are shares of the filler in [0, 1].
 */
export type Placement =
  | "uniform"
  | "interspersed"
  | { readonly adjacent: number }
  | { readonly depths: readonly number[] };

function requireDepth(where: string, depth: number): void {
  if (!(depth >= 0 && depth <= 1)) {
    throw new OptionError(`[${where}] a depth must be in [0, 1]; received ${depth}.`);
  }
}

/**
 * Positions `v_j` in [0, 1] of `count` items, ascending: item `j` goes before unit `floor(v_j · (n + 1))` of `n`, at most after the last.
 * They are drawn once for all lengths, so that a longer sample keeps the shorter one's order.
 */
export function positionsFor(where: string, placement: Placement, count: number, random: Random): number[] {
  if (placement === "uniform") {
    return Array.from({ length: count }, () => random.uniform()).sort((a, b) => a - b);
  }
  if (placement === "interspersed") return Array.from({ length: count }, (_, j) => (j + 1) / (count + 1));
  if ("adjacent" in placement) {
    requireDepth(where, placement.adjacent);
    return new Array<number>(count).fill(placement.adjacent);
  }
  const { depths } = placement;
  for (const depth of depths) requireDepth(where, depth);
  if (depths.length !== count || depths.some((depth, j) => j > 0 && depth < depths[j - 1]!)) {
    throw new OptionError(
      `[${where}] depths must be ${count} ascending numbers, one for each item; received ${JSON.stringify(depths)}.`,
    );
  }
  return [...depths];
}

/** The unit before which an item at `position` stands, in `0 .. n`. */
export function gapOf(position: number, n: number): number {
  return Math.min(n, Math.floor(position * (n + 1)));
}

/** Items and `n` units in the order in which they stand, each by its number; `positions` ascending. */
export function* interleaved(
  positions: readonly number[],
  n: number,
): Generator<readonly [kind: "item" | "unit", number: number]> {
  let j = 0;
  for (let k = 0; k <= n; k++) {
    while (j < positions.length && gapOf(positions[j]!, n) === k) yield ["item", j++];
    if (k < n) yield ["unit", k];
  }
}
