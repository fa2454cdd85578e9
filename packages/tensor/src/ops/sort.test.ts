import { describe, expect, it } from "vitest";
import { expectSameBits } from "../../test/compare.js";
import { generator } from "../../test/numbers.js";
import * as t from "../index.js";
import { scope, type Tensor } from "../index.js";

const values = (x: Tensor) => [...x.dataSync()];
const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

/** The first place at which positions are not those of a row in order (NaN last, equal numbers by position), each once; -1 if they are. */
function misplaced(row: ArrayLike<number>, order: ArrayLike<number>, descending: boolean): number {
  const seen = new Uint8Array(row.length);
  const rank = (i: number) => (Number.isNaN(row[i]!) ? 1 : 0);
  const before = (i: number, j: number) => {
    const [x, y] = descending ? [row[j]!, row[i]!] : [row[i]!, row[j]!];
    return rank(i) < rank(j) || (rank(i) === rank(j) && (x < y || (!(x > y) && i < j)));
  };
  for (let k = 0; k < row.length; k++) {
    const i = order[k]!;
    if (seen[i] !== 0 || (k > 0 && !before(order[k - 1]!, i))) return k;
    seen[i] = 1;
  }
  return order.length === row.length ? -1 : row.length;
}

/** Rows with ties, both zeros, infinities and NaN. */
function awkward(count: number, seed: number): Float64Array {
  const next = generator(seed);
  const special = [0, -0, inf, -inf, nan, 1, 1];
  return Float64Array.from({ length: count }, () => {
    const r = next();
    return r < 0.2 ? special[Math.floor(next() * special.length)]! : Math.fround((next() - 0.5) * 2 ** (next() * 40));
  });
}

const dtypes = ["float32", "float64", "int32"] as const;
/** Rows and their length: counted places, one pass and many, a long row in parts. */
const sizes: [rows: number, n: number][] = [
  [3, 1],
  [3, 2],
  [5, 17],
  [2, 127],
  [2, 128],
  [2, 129],
  [3, 1000],
  [2, 20_000],
  [1, 140_000],
];

describe("argsort", () => {
  it("computes a worked example", () => {
    expect(values(t.argsort(t.tensor([3, 1, 2, 1])))).toEqual([1, 3, 2, 0]);
    expect(values(t.argsort(t.tensor([3, 1, 2, 1]), { descending: true }))).toEqual([0, 2, 1, 3]);
    expect(values(t.argsort(t.tensor([nan, -0, 0, -inf, nan])))).toEqual([3, 1, 2, 0, 4]);
    expect(values(t.argsort(t.tensor([nan, 0, -0, -inf]), { descending: true }))).toEqual([1, 2, 3, 0]);
    expect(values(t.argsort(t.tensor(Int32Array.of(2 ** 31 - 1, -(2 ** 31), -1, 0))))).toEqual([1, 2, 3, 0]);
  });

  it.each(sizes)("puts %i rows of %i in order, equal numbers by position", (rows, n) => {
    for (const dtype of dtypes)
      scope(() => {
        const x = t.tensor(awkward(rows * n, n), { shape: [rows, n], dtype });
        for (const descending of [false, true]) {
          const across = t.argsort(x, { descending });
          const down = t.argsort(x.T, { axis: 0, descending }).T;
          const backwards = t.flip(t.argsort(t.flip(x, 0), { descending }), 0);
          for (let row = 0; row < rows; row++) {
            const of = (y: Tensor) => y.slice(0, row, row + 1).dataSync();
            for (const out of [across, down, backwards])
              expect(misplaced(of(x), of(out), descending), `${dtype} row ${row}`).toBe(-1);
          }
        }
      });
  });

  it("of nothing is nothing", () => {
    expect(t.argsort(t.zeros([2, 0]))).toMatchObject({ shape: [2, 0], dtype: "int32" });
    expect(t.sort(t.zeros([0, 3]), { axis: 0 }).values.shape).toEqual([0, 3]);
  });
});

describe("sort", () => {
  it("gives values and positions of any axis, and a gradient that goes back to them", () => {
    const x = t.tensor([
      [3, 1],
      [2, 5],
      [1, 4],
    ]);
    const { values: sorted, indices } = t.sort(x, { axis: 0 });
    expect(values(sorted)).toEqual([1, 1, 2, 4, 3, 5]);
    expect(values(indices)).toEqual([2, 0, 1, 2, 0, 1]);
    const weights = t.tensor([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    const grad = t.grad((y: Tensor) => t.sort(y, { axis: 0 }).values.mul(weights).sum(), x);
    expect(values(grad)).toEqual([5, 2, 3, 6, 1, 4]);
  });
});

describe("topK", () => {
  it("computes a worked example", () => {
    const { values: best, indices } = t.topK(t.tensor([1, 5, 3, 5, nan]), 3);
    expect(values(best)).toEqual([5, 5, 3]);
    expect(values(indices)).toEqual([1, 3, 2]);
    expect(values(t.topK(t.tensor([1, 5, 3, 5]), 2, { largest: false }).values)).toEqual([1, 3]);
    expect(t.topK(t.zeros([2, 3]), 0).values.shape).toEqual([2, 0]);
  });

  it.each(sizes)("is the beginning of argsort: %i rows of %i", (rows, n) => {
    for (const dtype of dtypes)
      scope(() => {
        const x = t.tensor(awkward(rows * n, n + 1), { shape: [rows, n], dtype });
        for (const largest of [false, true]) {
          const all = t.argsort(x, { descending: largest });
          for (const k of [1, 2, 7, n >> 5, n >> 4, n >> 3, n].filter((k) => k >= 1 && k <= n)) {
            const { indices } = t.topK(x, k, { largest });
            expectSameBits(indices.dataSync(), all.slice(1, 0, k).dataSync(), `${dtype}, ${k} of ${n}`);
            const columns = t.topK(x.T, k, { axis: 0, largest }).indices;
            expectSameBits(columns.T.dataSync(), indices.dataSync(), `${dtype}, ${k} of ${n} in columns`);
          }
        }
      });
  });

  it("finds the best of rows that are sorted, equal, or NaN", () => {
    const n = 5000;
    const rows: [string, (i: number) => number, number[]][] = [
      ["ascending", (i) => i, [n - 1, n - 2, n - 3]],
      ["descending", (i) => -i, [0, 1, 2]],
      ["equal", () => 4, [0, 1, 2]],
      ["NaN", () => nan, [0, 1, 2]],
      ["NaN but for two", (i) => (i === 77 || i === 4999 ? i : nan), [4999, 77, 0]],
    ];
    for (const [name, value, expected] of rows) {
      const x = t.tensor(Float32Array.from({ length: n }, (_, i) => value(i)));
      expect(values(t.topK(x, 3).indices), name).toEqual(expected);
    }
  });

  it("takes 16-bit numbers", () => {
    for (const dtype of ["bfloat16", "float16"] as const) {
      const x = t.tensor(
        [
          [1, 5, 3],
          [-1, nan, 2],
        ],
        { dtype },
      );
      const { values: best, indices } = t.topK(x, 2);
      expect(best.dtype).toBe(dtype);
      expect(values(best.astype("float32"))).toEqual([5, 3, 2, -1]);
      expect(values(indices)).toEqual([1, 2, 2, 0]);
      expect(values(t.argMax(x, { axis: 1 }))).toEqual([1, 1]);
      expect(values(t.cumsum(x.slice(0, 0, 1), 1).astype("float32"))).toEqual([1, 6, 9]);
    }
  });

  it("refuses more than there are", () => {
    expect(() => t.topK(t.zeros([2, 3]), 4)).toThrow("[topK] k must be at most 3, the size of axis -1; received 4.");
    expect(() => t.topK(t.zeros([3]), 1.5)).toThrow("k must be a non-negative integer");
    expect(() => t.topK(t.zeros([3], { dtype: "uint8" }), 1)).toThrow(
      "[topK] x must have a floating-point dtype; received uint8",
    );
  });
});

describe("argMax and argMin", () => {
  it("compute worked examples", () => {
    const x = t.tensor([
      [1, 9, 9],
      [7, 2, 2],
    ]);
    expect(t.argMax(x)).toMatchObject({ shape: [], dtype: "int32" });
    expect(t.argMax(x).itemSync()).toBe(1);
    expect(values(t.argMax(x, { axis: 1 }))).toEqual([1, 0]);
    expect(values(t.argMin(x, { axis: 1 }))).toEqual([0, 1]);
    expect(values(t.argMax(x, { axis: 0 }))).toEqual([1, 0, 0]);
    expect(t.argMin(x, { axis: 0, keepDims: true }).shape).toEqual([1, 3]);
    expect(t.argMax(x, { keepDims: true }).shape).toEqual([1, 1]);
    expect(t.argMax(x.T).itemSync()).toBe(2);
    expect(t.argMax(t.tensor(3)).itemSync()).toBe(0);
    expect(values(t.argMax(t.tensor([1, nan, 5, nan]), { axis: 0 }))).toEqual([1]);
    expect(values(t.argMin(t.tensor([-inf, -inf]), { axis: 0 }))).toEqual([0]);
    expect(t.argMax(t.zeros([0, 3]), { axis: 1 }).shape).toEqual([0]);
  });

  it.each([...sizes, [300, 5], [1, 200_000]])("find the first in %i rows of %i and in their columns", (rows, n) => {
    for (const dtype of dtypes)
      for (const clean of [false, true])
        scope(() => {
          const numbers = awkward(rows * n, n + 2).map((v) => (clean ? (Number.isNaN(v) ? 1 : v % 7) || 0 : v));
          const x = t.tensor(numbers, { shape: [rows, n], dtype });
          const data = x.dataSync();
          const first = (better: (a: number, b: number) => boolean) =>
            Array.from({ length: rows }, (_, row) => {
              const of = data.subarray(row * n, (row + 1) * n);
              let best = 0;
              for (let i = 1; i < n; i++) {
                const wins = better(of[i]!, of[best]!) || (Number.isNaN(of[i]!) && !Number.isNaN(of[best]!));
                if (wins) best = i;
              }
              return best;
            });
          const columns = x.T.clone();
          expect(values(t.argMax(x, { axis: 1 }))).toEqual(first((a, b) => a > b));
          expect(values(t.argMin(x, { axis: 1 }))).toEqual(first((a, b) => a < b));
          expect(values(t.argMax(columns, { axis: 0 }))).toEqual(first((a, b) => a > b));
          expect(values(t.argMin(columns, { axis: 0 }))).toEqual(first((a, b) => a < b));
          expect(values(t.argMax(t.flip(t.flip(x, 1).clone(), 1), { axis: 1 }))).toEqual(first((a, b) => a > b));
        });
  });

  it("refuse more elements than int32 counts", () => {
    const long = t.zeros([2, 1]).expand([2, 2 ** 31]);
    const message = "must have at most 2147483647 elements, since positions are int32; received";
    expect(() => t.argMax(long, { axis: 1 })).toThrow(`[argMax] axis 1 ${message} 2147483648`);
    expect(() => t.argMin(long)).toThrow(`[argMin] x ${message} 4294967296`);
    expect(() => t.argsort(long)).toThrow(`[argsort] axis 1 ${message} 2147483648`);
    expect(() => t.sort(long)).toThrow(message);
    expect(() => t.topK(long, 3)).toThrow(`[topK] axis 1 ${message} 2147483648`);
  });

  it("refuse to choose from nothing", () => {
    expect(() => t.argMax(t.zeros([2, 0]), { axis: 1 })).toThrow("[argMax] there is nothing to choose from");
    expect(() => t.argMin(t.zeros([0]))).toThrow("[argMin] there is nothing to choose from");
    expect(() => t.argMax(t.zeros([1], { dtype: "bool" }))).toThrow(
      "[argMax] x must have a floating-point dtype; received bool",
    );
  });
});
