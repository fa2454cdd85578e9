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
