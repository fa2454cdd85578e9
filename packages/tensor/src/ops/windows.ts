/** Sizes of the windows that convolutions and pooling move over images. */
import { OptionError, ShapeError } from "@llmeff/native";

/** One number for both axes, or `[height, width]`. */
export type Pair = number | readonly [height: number, width: number];

/** Both numbers, each an integer of at least `least`. */
export function pairOf(where: string, name: string, value: Pair, least: number): [height: number, width: number] {
  const pair = typeof value === "number" ? [value, value] : value;
  const valid = Array.isArray(pair) && pair.length === 2 && pair.every((n) => Number.isSafeInteger(n) && n >= least);
  if (!valid) {
    throw new OptionError(
      `[${where}] ${name} must be an integer ≥ ${least} or two of them, [height, width]; received ${JSON.stringify(value)}.`,
    );
  }
  return [pair[0]!, pair[1]!];
}

/** The two of `[1, n]`: how a 1-d form is a 2-d one of height 1. */
export function inWidth(where: string, name: string, value: number, least: number, height: number): [number, number] {
  if (typeof value !== "number") {
    throw new OptionError(`[${where}] ${name} must be one integer; received ${JSON.stringify(value)}.`);
  }
  return [height, pairOf(where, name, value, least)[1]];
}

/** Positions of a window of `extent` elements on an axis of `size`, which must have elements: padding alone is no image. */
export function positionsOf(where: string, size: number, extent: number, stride: number, padding: number): number {
  const padded = size + 2 * padding;
  if (size === 0 || extent > padded) {
    throw new ShapeError(
      `[${where}] a window of ${extent} doesn't fit an axis of ${size} with padding ${padding} on both ends.`,
    );
  }
  return Math.floor((padded - extent) / stride) + 1;
}
