import { defaultDevice } from "@llmeff/tensor";
import { expect } from "vitest";

/** To the bit on a CPU; on a GPU, whose kernels divide keys by their number and place, up to roundings. */
export function expectSame(given: readonly number[][], wanted: readonly number[][]): void {
  if (defaultDevice() === "cpu") {
    expect(given).toEqual(wanted);
    return;
  }
  expect(given.map(({ length }) => length)).toEqual(wanted.map(({ length }) => length));
  const flat = wanted.flat();
  for (const [i, score] of given.flat().entries()) expect(score).toBeCloseTo(flat[i]!, 5);
}
