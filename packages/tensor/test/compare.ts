import { expect } from "vitest";

/** Rounding unit of a dtype: half the distance from 1 to the next number. */
export const unitRoundoff = { float32: 2 ** -24, float64: 2 ** -53 } as const;
export const halfRoundoff = { bfloat16: 2 ** -8, float16: 2 ** -11 } as const;

export type FloatDType = keyof typeof unitRoundoff;
export const floatDTypes = ["float32", "float64"] as const satisfies readonly FloatDType[];

/**
 * What rounding makes of a sum of `n` terms of size 1: λ·√n roundings with λ = 6, which a sum of independently rounded terms exceeds with
 * probability below 2n·exp(−λ²/2) (Higham, Mary 2019, "A new approach to probabilistic rounding error analysis").
 */
export function sumError(n: number, dtype: FloatDType): number {
  return 6 * Math.sqrt(n) * unitRoundoff[dtype];
}

/**
 * How far two computations of means weighted by a softmax may lie apart, per unit of the values: logits of size `logit`, each a sum over
 * `channels`, are off by that sum's error, which their exponentials repeat relatively; then the exponentials of `keys` logits are summed, and
 * so are as many weighted values.
 */
export function softmaxError(
  { channels, logit, keys }: { channels: number; logit: number; keys: number },
  dtype: FloatDType,
): number {
  return 2 * (logit * sumError(channels, dtype) + 2 * sumError(keys, dtype));
}

export interface Tolerance {
  /** Allowed beside the relative part. */
  atol?: number;
  /** Allowed per unit of the expected value's magnitude. */
  rtol?: number;
}

export function largest(values: ArrayLike<number>): number {
  let max = 0;
  for (let i = 0; i < values.length; i++) max = Math.max(max, Math.abs(values[i]!));
  return max;
}

/** Fails with the first index that differs, both values, and the largest differences. NaN equals NaN; infinities must be equal. */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { atol = 0, rtol = 0 }: Tolerance,
  label = "values",
): void {
  expect(actual.length, `${label}: number of elements`).toBe(expected.length);
  let first = -1;
  let absolute = 0;
  let relative = 0;
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i]!;
    const b = expected[i]!;
    if (Object.is(a, b) || a === b) continue;
    const difference = Math.abs(a - b);
    const within = difference <= atol + rtol * Math.abs(b) && Number.isFinite(b);
    if (!within && first < 0) first = i;
    absolute = Math.max(absolute, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference);
    relative = Math.max(relative, difference / Math.abs(b) || 0);
  }
  if (first >= 0) {
    expect.fail(
      `${label}: element ${first} is ${actual[first]}, expected ${expected[first]} (atol ${atol}, rtol ${rtol}); ` +
        `largest absolute difference ${absolute}, relative ${relative}`,
    );
  }
}

/** The same bits: tells −0 from 0 and NaN payloads apart. */
export function expectSameBits(actual: ArrayBufferView, expected: ArrayBufferView, label = "values"): void {
  const bytes = (view: ArrayBufferView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  expect(bytes(actual).equals(bytes(expected)), `${label}: bits differ`).toBe(true);
}
