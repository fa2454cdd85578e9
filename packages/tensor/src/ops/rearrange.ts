/** Copies with the elements of an axis elsewhere or several times; made of views. */
import { OptionError, ShapeError } from "@llmeff/native";
import { scope } from "../scope.js";
import { formatShape, normalizeAxis, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkCount, checkTensor } from "./arguments.js";
import { clone } from "./clone.js";
import { concat } from "./concat.js";
import { slice } from "./slice.js";
import { expand, reshape } from "./views.js";

/** The elements of an axis moved on by `shift` places; those that leave it at one end come in at the other. */
export function roll(x: Tensor, shift: number, axis: number): Tensor {
  checkTensor("roll", "x", x);
  if (!Number.isSafeInteger(shift)) throw new OptionError(`[roll] shift must be an integer; received ${shift}.`);
  const on = normalizeAxis("roll", axis, x.rank);
  const n = x.shape[on]!;
  if (n === 0) return clone(x);
  const cut = (((-shift % n) + n) % n) % n;
  return scope(() => concat([slice(x, on, cut), slice(x, on, 0, cut)], on));
}

/** `[lead, n, tail]` as `[lead, times, n, tail]`, the copy of which is returned under `shape`. */
function copies(x: Tensor, lead: number, times: number, shape: readonly number[]): Tensor {
  const tail = lead === 0 ? 0 : x.size / lead;
  return reshape(expand(reshape(x, [lead, 1, tail]), [lead, times, tail]), shape);
}

/** The whole of `x` beside itself, `repeats[i]` times along axis `i`, as `numpy.tile` and `torch.tile` do. */
export function tile(x: Tensor, repeats: readonly number[]): Tensor {
  checkTensor("tile", "x", x);
  if (!Array.isArray(repeats) || repeats.length !== x.rank) {
    throw new ShapeError(
      `[tile] expected how often for each of the ${x.rank} axes of ${formatShape(x.shape)}; received ${JSON.stringify(repeats)}.`,
    );
  }
  for (const times of repeats) checkCount("tile", "each of repeats", times);
  return scope(() =>
    repeats.reduce((y: Tensor, times, axis) => {
      const shape = y.shape.with(axis, y.shape[axis]! * times);
      return times === 1 ? y : copies(y, sizeOf(y.shape.slice(0, axis)), times, shape);
    }, clone(x)),
  );
}

/** Each element of an axis `times` times in a row, as `numpy.repeat` and `torch.repeat_interleave` do. */
export function repeat(x: Tensor, times: number, axis: number): Tensor {
  checkTensor("repeat", "x", x);
  checkCount("repeat", "times", times);
  const on = normalizeAxis("repeat", axis, x.rank);
  const shape = x.shape.with(on, x.shape[on]! * times);
  return scope(() => copies(x, sizeOf(x.shape.slice(0, on + 1)), times, shape));
}
