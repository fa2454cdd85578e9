import { sampleTokensInto, scope, type Tensor, tensor, zeros } from "@llmeff/tensor";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { resolveSampling, type SamplingOptions, sampleToken } from "./sampling.js";

const N = 32;

/** Tokens that the device draws of the rows. */
function drawn(logits: Tensor, options: readonly SamplingOptions[], u: Float64Array): number[] {
  return scope(() => {
    const ids = zeros([N], { dtype: "int32" });
    const filters = options.flatMap(({ temperature = 1, topK = 0, topP = 1, minP = 0 }) => [
      temperature,
      topK,
      topP,
      minP,
    ]);
    sampleTokensInto(ids, logits, tensor(Float64Array.from(filters), { shape: [N, 4] }), tensor(u));
    return [...ids.dataSync()] as number[];
  });
}

const option = fc.record(
  {
    temperature: fc.oneof(fc.constantFrom(0, 1e-300, 1), fc.double({ min: 0.05, max: 3, noNaN: true })),
    topK: fc.oneof(fc.integer({ min: 1, max: 60 }), fc.constant(100_000)),
    topP: fc.oneof(fc.constantFrom(1e-9, 1), fc.double({ min: 1e-3, max: 1, noNaN: true })),
    minP: fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1, noNaN: true })),
  },
  { requiredKeys: [] },
);
/** Not where tokens of hardly any weight would be drawn, which a GPU rounds to none. */
const number = fc.integer({ min: 0, max: 2 ** 20 - 1 }).map((i) => (i + 0.5) / 2 ** 20);
const numbers = fc.array(number, { minLength: N, maxLength: N });

describe("tokens drawn on the device", () => {
  it.each<[string, number, (x: number, id: number) => number]>([
    ["one token", 1, (x) => x],
    ["a small vocabulary", 7, (x) => 3 * x],
    ["ties", 40, (x) => Math.round(3 * x)],
    ["some of −∞", 101, (x, id) => (id % 3 === 1 ? Number.NEGATIVE_INFINITY : 4 * x)],
    ["scores far from each other", 300, (x) => 800 * x],
    ["scores close to each other", 1000, (x) => 1e-3 * x],
    ["ties in a large vocabulary", 3001, (x) => Math.min(2, Math.round(2 * x))],
    ["a large vocabulary", 20_011, (x) => 4 * x],
  ])("are those that the host draws: %s", (_name, V, score) => {
    const rows = fc.record({ options: fc.array(option, { minLength: N, maxLength: N }), u: numbers, seed: fc.nat() });
    const check = ({ options, u, seed }: { options: SamplingOptions[]; u: number[]; seed: number }) => {
      // Enough like noise, and the same for the same seed.
      const noise = (i: number) => {
        const x = Math.sin((seed % 1009) + 12.9898 * (i + 1)) * 43758.5453;
        return 2 * (x - Math.floor(x)) - 1;
      };
      const values = Float32Array.from({ length: N * V }, (_, i) => score(noise(i), i % V));
      const found = drawn(tensor(values, { shape: [N, V] }), options, Float64Array.from(u));
      const wanted = options.map((each, row) =>
        sampleToken(values.subarray(row * V, (row + 1) * V), resolveSampling(each), {}, u[row]!),
      );
      expect(found).toEqual(wanted);
    };
    fc.assert(fc.property(rows, check), { numRuns: V > 1000 ? 5 : 60, seed: 17 });
  });
});
