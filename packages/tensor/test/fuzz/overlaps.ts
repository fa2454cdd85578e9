/** Copies between two views of one memory. */
import { clone, copyInto, scope, type Tensor, tensor } from "../../src/index.js";
import { type Dice, dtypes, type Report, shuffledAxes, sizeOf, wide } from "./dice.js";

/** A way to `size` elements along each axis, the axes forwards or backwards and in any order. */
function choosePart(dice: Dice, shape: readonly number[], size: number): (whole: Tensor) => Tensor {
  const starts = shape.map((n) => dice.below(n - size + 1));
  const backwards = shape.map(() => dice.chance(0.2));
  const order = shuffledAxes(dice, shape.length);
  return (whole) => {
    let part = whole;
    for (const [axis, start] of starts.entries()) {
      part = part.slice(axis, start, start + size);
      if (backwards[axis]) part = part.slice(axis, size - 1, undefined, -1);
    }
    return part.permute(order);
  };
}

/** What arrives are the values before the copy, wherever source and target lie, and nothing beside the target changes. */
export function fuzzOverlap(dice: Dice, report: Report): string {
  scope(() => {
    const rank = 1 + dice.below(3);
    const size = 1 + dice.below(rank === 1 ? 300 : 12);
    const shape = Array.from({ length: rank }, () => size + dice.below(4));
    const count = sizeOf(shape);
    const dtype = dice.of(dtypes);
    const whole = tensor(
      Float64Array.from({ length: count }, (_, i) => i % 127),
      { shape, dtype },
    );
    const [target, source] = [choosePart(dice, shape, size), choosePart(dice, shape, size)];
    const apart = clone(whole);
    copyInto(target(apart), source(whole));
    copyInto(target(whole), source(whole));
    const [got, want] = [wide(whole), wide(apart)];
    const at = got.findIndex((value, i) => value !== want[i]);
    if (at >= 0)
      report.fail(`copyInto of ${dtype} [${shape}] over itself: element ${at} is ${got[at]}, not ${want[at]}`);
    report.computed("copyInto");
  });
  return "copyInto";
}
