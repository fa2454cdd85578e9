/**
 * Cases of `optimizers.json` as data for tests: options under our names, problems as arrays, and the file's comparison.
 */
import { readFileSync } from "node:fs";
import { expect } from "vitest";

export type FloatDType = "float32" | "float64";
type FloatArray = Float32Array | Float64Array;

interface RawCase {
  id: string;
  optimizer: string;
  hyper: Record<string, number | string | boolean>;
  problem: string;
  params: Record<string, number[][]>;
  eval_params?: Record<string, number[][]>;
  rtol64: number;
  rtol32: number | null;
  dropped_per_step?: number[];
}

interface Problem {
  shapes: number[][];
  params0: number[][];
  grads: number[][][];
}

/** One case at one precision. */
export interface GoldenCase {
  id: string;
  dtype: FloatDType;
  optimizer: string;
  /** Under our names; what the file leaves out is left out. */
  options: Record<string, number | string | boolean>;
  problem: Problem;
  /** Parameters after the steps that are keys. */
  expected: Record<string, number[][]>;
  /** Where to evaluate after them, where that is another point. */
  evalExpected?: Record<string, number[][]>;
  tolerance: number;
  dropped?: number[];
}

const grafts: Record<string, string> = { adam_raw: "adamRaw", rmsprop_norm: "rmspropNorm" };

export function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function optionsOf(hyper: RawCase["hyper"]): GoldenCase["options"] {
  return Object.fromEntries(
    Object.entries(hyper).map(([key, value]) => {
      if (key === "lr") return ["learningRate", value];
      if (key === "graft") return ["graft", grafts[String(value)] ?? value];
      return [camelCase(key), value];
    }),
  );
}

/** The cases that `chosen` accepts, in float64 and where the file allows it in float32. */
export function goldenCases(
  path: string,
  chosen: (raw: { optimizer: string; hyper: RawCase["hyper"] }) => boolean,
): GoldenCase[] {
  const file = JSON.parse(readFileSync(path, "utf8")) as { problems: Record<string, Problem>; cases: RawCase[] };
  return file.cases.filter(chosen).flatMap((raw) => {
    const both: [FloatDType, number | null][] = [
      ["float64", raw.rtol64],
      ["float32", raw.rtol32],
    ];
    return both.flatMap(([dtype, tolerance]) =>
      tolerance === null
        ? []
        : [
            {
              id: `${raw.id} ${dtype}`,
              dtype,
              optimizer: raw.optimizer,
              options: optionsOf(raw.hyper),
              problem: file.problems[raw.problem]!,
              expected: raw.params,
              ...(raw.eval_params ? { evalExpected: raw.eval_params } : {}),
              tolerance,
              ...(raw.dropped_per_step ? { dropped: raw.dropped_per_step } : {}),
            },
          ],
    );
  });
}

export function typedArray(dtype: FloatDType, values: readonly number[]): FloatArray {
  return dtype === "float32" ? Float32Array.from(values) : Float64Array.from(values);
}

/** `max|x − ref| ≤ rtol·max|ref − params0| + 1e-12`, per tensor; in float32 `+ 2⁻²³·max|params0|`, which is what rounding params0 costs. */
export function expectGolden(
  golden: GoldenCase,
  step: number,
  values: readonly ArrayLike<number>[],
  expected = golden.expected,
): void {
  const reference = expected[step];
  if (!reference) return;
  const { tolerance, problem } = golden;
  for (const [i, want] of reference.entries()) {
    const start = problem.params0[i]!;
    const got = Array.from(values[i]!);
    const largest = (xs: readonly number[]) => xs.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const rounding = golden.dtype === "float32" ? 2 ** -23 * largest(start) : 0;
    const limit = tolerance * largest(want.map((x, j) => x - start[j]!)) + 1e-12 + rounding;
    // NaN must not pass: Math.max keeps it and the comparison fails.
    const error = largest(got.map((x, j) => x - want[j]!));
    expect(got).toHaveLength(want.length);
    expect(error, `${golden.id}, step ${step}, tensor ${i}: largest error`).toBeLessThanOrEqual(limit);
  }
}

/** One of the file's factorisations: `L[j][k − 1]` is L[j + k, j], absent where the window is cut. */
export interface FactorUnit {
  n: number;
  band: number;
  gamma: number;
  gamma_mode: "relative" | "absolute";
  drop: "forward" | "isolate";
  /** With δ. */
  diagonals: number[][];
  schur: number[];
  dropped: number[];
  L: number[][];
  D: number[];
  m: number[];
  u: number[];
  rtol: number;
}

export function factorUnits(path: string): FactorUnit[] {
  return (JSON.parse(readFileSync(path, "utf8")) as { units: { sonew_factor: FactorUnit[] } }).units.sonew_factor;
}

/** `max|x − ref| ≤ rtol·max|ref| + 1e-12` */
export function expectUnit(what: string, got: ArrayLike<number>, want: readonly number[], rtol: number): void {
  const limit = rtol * want.reduce((most, x) => Math.max(most, Math.abs(x)), 0) + 1e-12;
  expect(got, what).toHaveLength(want.length);
  for (const [i, x] of want.entries()) expect(Math.abs(got[i]! - x), `${what}[${i}]`).toBeLessThanOrEqual(limit);
}
