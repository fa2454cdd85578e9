import { describe, expect, it } from "vitest";
import * as t from "../index.js";

interface Filters {
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
}

/** Ids, scores, log-sum-exps and largest scores. */
function sample(logits: t.Tensor, filters: readonly Filters[], u: readonly number[]) {
  const N = filters.length;
  const ids = t.zeros([N], { dtype: "int32" });
  const how = filters.flatMap(({ temperature = 1, topK = 0, topP = 1, minP = 0 }) => [temperature, topK, topP, minP]);
  const filterRows = t.tensor(Float64Array.from(how), { shape: [N, 4] });
  const found = t.sampleTokensInto(ids, logits, filterRows, t.tensor(Float64Array.from(u)));
  const values = [...found.dataSync()] as number[];
  expect([...ids.dataSync()]).toEqual(values.slice(0, N));
  const [id, score, sum, largest] = [0, 1, 2, 3].map((i) => values.slice(i * N, (i + 1) * N));
  return { id: id!, score: score!, sum: sum!, largest: largest! };
}
const one = (logits: readonly number[], filters: Filters, u: number) =>
  sample(t.tensor(Float32Array.from(logits), { shape: [1, logits.length] }), [filters], [u]).id[0]!;
const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];

describe("sampleTokensInto", () => {
  it("takes the first token with which the mass exceeds u, by the order of the ids", () => {
    const logits = [2, 1, 4, 1].map(Math.log);
    for (const [u, id] of [
      [0, 0],
      [0.2499, 0],
      [0.2501, 1],
      [0.3749, 1],
      [0.3751, 2],
      [0.8749, 2],
      [0.8751, 3],
      [1 - 2 ** -53, 3],
    ] as const)
      expect(one(logits, {}, u)).toBe(id);
  });

  it("applies temperature, top-k, top-p and min-p", () => {
    const logits = [2, 1, 4, 1].map(Math.log);
    const all = (filters: Filters) => [
      ...new Set(Array.from({ length: 64 }, (_, i) => one(logits, filters, (i + 0.5) / 64))),
    ];
    expect(all({ topK: 1 })).toEqual([2]);
    expect(all({ topK: 2 })).toEqual([0, 2]);
    expect(all({ topK: 3 })).toEqual([0, 1, 2, 3]); // ties are kept
    expect(all({ topK: 9 })).toEqual([0, 1, 2, 3]);
    expect(all({ topP: 1e-300 })).toEqual([2]);
    expect(all({ topP: 0.6 })).toEqual([0, 2]);
    expect(all({ topP: 0.8 })).toEqual([0, 1, 2]); // of equal ones the first
    expect(all({ topP: 0.9 })).toEqual([0, 1, 2, 3]);
    expect(all({ topK: 2, topP: 0.5 })).toEqual([2]); // 4 of 6 come first
    expect(all({ minP: 1 })).toEqual([2]);
    expect(all({ minP: 0.49 })).toEqual([0, 2]);
    expect(all({ topP: 0.8, minP: 0.3 })).toEqual([0, 2]);
    expect(all({ temperature: 5e-324 })).toEqual([2]);
    expect(all({ temperature: 0 })).toEqual([2]);
    expect(one(logits, { temperature: 1e300 }, 0.74)).toBe(2); // all alike
  });

  it("keeps as many of equal tokens as there is room for", () => {
    for (const V of [10, 1000, 50_304]) {
      const logits = new Array<number>(V).fill(-7);
      for (const p of [0.8, 0.3, 0.05]) {
        const kept = Math.ceil(p * V);
        for (const u of [0, 0.51234, 1 - 2 ** -53])
          expect(one(logits, { topP: p }, u)).toBe(Math.min(kept - 1, Math.floor(u * kept)));
      }
    }
  });

  it("counts zeros of both signs as one score, and leaves out tokens of −∞", () => {
    expect([0, 0.3, 0.6].map((u) => one([-0, 0, -0, -1], { topK: 2 }, u))).toEqual([0, 0, 1]);
    expect([0.1, 0.6].map((u) => one([0, -0, -1, -0], { topP: 0.5 }, u))).toEqual([0, 1]);
    expect([0, 0.9].map((u) => one([-inf, 1, -inf], {}, u))).toEqual([1, 1]);
    expect([0, 0.9].map((u) => one([-inf, 1, -inf], { topK: 2, topP: 0.99, minP: 0.1 }, u))).toEqual([1, 1]);
  });

  it("serves rows of different filters, and tells of those that can't be drawn by", () => {
    const logits = t.tensor([1, 5, 5, -inf, nan, 3, nan, 2, -inf, -inf, -inf, -inf, 2, inf, inf, 0], { shape: [4, 4] });
    const { id, score, sum, largest } = sample(logits, [{ topP: 0.6 }, {}, { topK: 2 }, { minP: 1 }], [0.9, 0, 0, 0]);
    expect(id).toEqual([2, 0, 0, 1]);
    expect(score).toEqual([5, nan, -inf, inf]);
    expect(sum[0]).toBeCloseTo(Math.log(2 * Math.exp(5) + Math.E), 5);
    expect(sum.slice(1)).toEqual([nan, -inf, inf]);
    expect(largest).toEqual([5, nan, -inf, inf]);
  });

  it.each(["float32", "float64", "bfloat16", "float16"] as const)(
    "draws of %s rows by their probabilities",
    (dtype) => {
      const [N, V] = [3, 600];
      const draws = 2000;
      const logits = t.slice(t.randomNormal({ seed: 3 }, [N, V + 8]).astype(dtype), 1, 3, V + 3);
      const wide = [...logits.astype("float64").dataSync()] as number[];
      const filters: Filters[] = [{ temperature: 0.5 }, { topK: 7 }, { temperature: 2, topP: 0.05 }];
      const counts = filters.map(() => new Map<number, number>());
      const numbers = t.randomUniform({ seed: 8 }, [draws, N], { dtype: "float64", device: "cpu" }).dataSync();
      for (let i = 0; i < draws; i++) {
        const { id, score } = t.scope(() =>
          sample(logits, filters, [...numbers.subarray(i * N, (i + 1) * N)] as number[]),
        );
        for (const [row, each] of id.entries()) {
          expect(score[row]).toBe(wide[row * V + each]);
          counts[row]!.set(each, (counts[row]!.get(each) ?? 0) + 1);
        }
      }
      for (const [row, { temperature = 1, topK = V, topP = 1 }] of filters.entries()) {
        const scores = wide.slice(row * V, (row + 1) * V);
        const order = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]! || a - b);
        const weights = scores.map((x) => (x >= scores[order[topK - 1]!]! ? Math.exp(x / temperature) : 0));
        const total = weights.reduce((a, b) => a + b);
        const kept = new Map<number, number>();
        let before = 0;
        for (const id of order) {
          if (weights[id]! > 0 && before < topP * total) kept.set(id, weights[id]!);
          before += weights[id]!;
        }
        const sum = [...kept.values()].reduce((a, b) => a + b);
        // Rare tokens together, so that each class is expected at least ten times.
        let [chi2, classes, rare, drawnRare] = [0, -1, 0, 0];
        for (const [id, weight] of kept) {
          const expected = (draws * weight) / sum;
          const drawn = counts[row]!.get(id) ?? 0;
          if (expected < 10) [rare, drawnRare] = [rare + expected, drawnRare + drawn];
          else [chi2, classes] = [chi2 + (drawn - expected) ** 2 / expected, classes + 1];
        }
        if (rare > 0) [chi2, classes] = [chi2 + (drawnRare - rare) ** 2 / rare, classes + 1];
        expect([...counts[row]!.keys()].every((id) => kept.has(id))).toBe(true);
        expect(chi2).toBeLessThan(classes + 4 * Math.sqrt(2 * classes));
      }
    },
  );

  it("refuses other shapes and dtypes", () => {
    const ids = t.zeros([2], { dtype: "int32" });
    const how = t.zeros([2, 4], { dtype: "float64" });
    const u = t.zeros([2], { dtype: "float64" });
    const wrong: [() => t.Tensor, string][] = [
      [() => t.sampleTokensInto(ids, t.zeros([3, 4]), how, u), "received [3, 4], [2], [2, 4], [2]"],
      [() => t.sampleTokensInto(ids, t.zeros([2]), how, u), "expected logits [N, V]"],
      [() => t.sampleTokensInto(ids, t.zeros([2, 3]), t.zeros([2, 4]), u), "filters must be float64"],
      [() => t.sampleTokensInto(ids, t.zeros([2, 3]), how, t.zeros([2])), "u must be float64"],
      [() => t.sampleTokensInto(t.zeros([2]), t.zeros([2, 3]), how, u), "ids must be int32"],
    ];
    for (const [call, message] of wrong) expect(call).toThrow(message);
  });
});
