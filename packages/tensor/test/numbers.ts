import { type DType, type Shape, type Tensor, tensor } from "../src/index.js";

/** Repeatable numbers for tests, apart from the engine's own generator (mulberry32). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `count` numbers in [low, high), all exactly representable in float32. */
export function numbers(count: number, seed: number, low = -1, high = 1): Float64Array {
  const next = generator(seed);
  return Float64Array.from({ length: count }, () => Math.fround(low + (high - low) * next()));
}

/** A tensor of such numbers. */
export function sample(
  shape: Shape,
  seed: number,
  { dtype = "float64", low = -1, high = 1 }: { dtype?: DType; low?: number; high?: number } = {},
): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return tensor(numbers(count, seed, low, high), { shape, dtype });
}

/** Integers in 0..below-1. */
export function sampleIds(shape: Shape, seed: number, below: number): Tensor {
  const next = generator(seed);
  const count = shape.reduce((a, b) => a * b, 1);
  return tensor(
    Int32Array.from({ length: count }, () => Math.floor(next() * below)),
    { shape },
  );
}
