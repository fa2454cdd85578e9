import { ShapeError } from "@llmeff/native";

export type Shape = readonly number[];

/** The engine's limit on axes. */
export const maxRank = 8;

export function sizeOf(shape: Shape): number {
  let size = 1;
  for (const n of shape) size *= n;
  return size;
}

/** Row-major strides in elements. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/** Whether elements lie in row-major order without gaps; strides of axes of size 1 don't matter. */
export function isContiguous(shape: Shape, strides: Shape): boolean {
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== stride) return false;
    stride *= shape[axis]!;
  }
  return true;
}

export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let axis = 0; axis < a.length; axis++) if (a[axis] !== b[axis]) return false;
  return true;
}

export function checkShape(where: string, shape: unknown): asserts shape is Shape {
  const valid =
    Array.isArray(shape) && shape.length <= maxRank && shape.every((n) => Number.isSafeInteger(n) && n >= 0);
  if (!valid) {
    throw new ShapeError(
      `[${where}] a shape is an array of at most ${maxRank} non-negative integers; received ${JSON.stringify(shape)}.`,
    );
  }
}

/** Axis counted from the front; `axis` may be negative to count from the end. */
export function normalizeAxis(where: string, axis: number, rank: number): number {
  if (!Number.isInteger(axis) || axis < -rank || axis >= rank) {
    throw new ShapeError(
      `[${where}] axis must be an integer in ${-rank}..${rank - 1} for rank ${rank}; received ${axis}.`,
    );
  }
  return axis < 0 ? axis + rank : axis;
}

/** One axis or several, counted from the front, each named once. */
export function normalizeAxes(where: string, axes: number | readonly number[], rank: number): number[] {
  const listed = typeof axes === "number" ? [axes] : axes;
  if (!Array.isArray(listed)) {
    throw new ShapeError(`[${where}] expected an axis or an array of axes; received ${JSON.stringify(axes)}.`);
  }
  const normal = listed.map((axis) => normalizeAxis(where, axis, rank));
  if (new Set(normal).size !== normal.length) {
    throw new ShapeError(`[${where}] each axis must be named once; received ${formatShape(listed)}.`);
  }
  return normal;
}

/**
 * Strides that show memory of one shape under another of the same size, or undefined where only a copy can: neighbouring axes of `target` must
 * divide runs of axes that lie behind each other in memory.
 */
export function reshapedStrides(shape: Shape, strides: Shape, target: Shape): number[] | undefined {
  if (sizeOf(shape) === 0 || isContiguous(shape, strides)) return contiguousStrides(target);
  const result = new Array<number>(target.length);
  let to = target.length - 1;
  let step = strides.at(-1)!; // of the run that is being divided
  let have = 1; // its elements so far
  let given = 1; // those that axes of the target have taken
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    have *= shape[axis]!;
    const goesOn = axis > 0 && (shape[axis - 1] === 1 || strides[axis - 1] === have * step);
    if (goesOn) continue;
    for (; to >= 0 && (given < have || target[to] === 1); to--) {
      result[to] = given * step;
      given *= target[to]!;
    }
    if (given !== have) return undefined;
    if (axis > 0) [step, have, given] = [strides[axis - 1]!, 1, 1];
  }
  return result;
}

/** The NumPy broadcast of two shapes. */
export function broadcastShapes(where: string, a: Shape, b: Shape): Shape {
  if (sameShape(a, b)) return a;
  const rank = Math.max(a.length, b.length);
  const shape = new Array<number>(rank);
  for (let i = 1; i <= rank; i++) {
    const m = i <= a.length ? a[a.length - i]! : 1;
    const n = i <= b.length ? b[b.length - i]! : 1;
    if (m !== n && m !== 1 && n !== 1) {
      throw new ShapeError(
        `[${where}] shapes ${formatShape(a)} and ${formatShape(b)} don't broadcast: ${m} ≠ ${n} on axis ${-i}. ` +
          "Sizes must be equal or 1, counted from the last axis.",
      );
    }
    shape[rank - i] = m === 1 ? n : m;
  }
  return shape;
}
