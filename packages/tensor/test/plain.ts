/** Arrays element by element, to say in plain words what an operation should give. */
import { type Shape, type Tensor, tensor } from "../src/index.js";

/** All positions of a shape in row-major order. */
export function* positions(shape: Shape): Generator<number[]> {
  const size = shape.reduce((a, b) => a * b, 1);
  for (let i = 0; i < size; i++) {
    let rest = i;
    const at = new Array<number>(shape.length);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at[axis] = rest % shape[axis]!;
      rest = Math.floor(rest / shape[axis]!);
    }
    yield at;
  }
}

/** Reads a tensor's elements by position. */
export function reader(x: Tensor): (at: readonly number[]) => number {
  const values = x.dataSync();
  return (at) => values[at.reduce((offset, i, axis) => offset * x.shape[axis]! + i, 0)]!;
}

/** The values at all positions of a shape. */
export function table(shape: Shape, value: (at: number[]) => number): number[] {
  return [...positions(shape)].map(value);
}

/** 0, 1, 2, … in the given shape. */
export function counted(shape: Shape, dtype: "float32" | "float64" | "int32" = "float64"): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return tensor(
    Float64Array.from({ length: size }, (_, i) => i),
    { shape, dtype },
  );
}
