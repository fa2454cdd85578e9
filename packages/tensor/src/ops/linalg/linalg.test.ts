import { describe, expect, it } from "vitest";
import { expectClose, type FloatDType, floatDTypes, largest, unitRoundoff } from "../../../test/compare.js";
import { generator, numbers, sample } from "../../../test/numbers.js";
import * as t from "../../index.js";
import { scope, type Tensor } from "../../index.js";

const values = (x: Tensor) => [...x.dataSync()];
const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

/** The largest element of a difference of matrices. */
const distance = (a: Tensor, b: Tensor) => scope(() => largest(a.sub(b).dataSync()));
const identity = (n: number, dtype: FloatDType) => t.eye(n, n, { dtype });
/** How far products of factors of `n` columns may be from a matrix with elements up to `size`. */
const bound = (n: number, dtype: FloatDType, size: number) => 16 * Math.max(4, n) * 2 * unitRoundoff[dtype] * size;
const symmetric = (shape: number[], seed: number, dtype: FloatDType) =>
  scope(() => {
    const x = sample(shape, seed, { dtype });
    return x.add(x.T);
  });
const definite = (shape: number[], seed: number, dtype: FloatDType) =>
  scope(() => {
    const x = sample(shape, seed, { dtype });
    return x.matmul(x.T).add(identity(shape.at(-1)!, dtype));
  });
/** `n` orthonormal columns of length `m`. */
const orthonormal = (m: number, n: number, seed: number, dtype: FloatDType) =>
  scope(() => t.qr(sample([m, n], seed, { dtype })).q);

const sizes = [1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 33, 64, 65, 100, 130];
const shapes: [number, number][] = [
  [1, 1],
  [1, 7],
  [7, 1],
  [2, 2],
  [3, 2],
  [2, 3],
  [5, 5],
  [17, 16],
  [16, 17],
  [64, 64],
  [65, 33],
  [33, 65],
  [200, 12],
  [12, 200],
  [97, 96],
];

function expectEigh(a: Tensor, label: string): number[] {
  return scope(() => {
    const n = a.shape.at(-1)!;
    const dtype = a.dtype as FloatDType;
    const { values: found, vectors } = t.eigh(a);
    const size = largest(a.dataSync());
    const back = vectors.mul(found.unsqueeze(-2)).matmul(vectors.T);
    expect(distance(back, a), `${label}: reconstruction`).toBeLessThanOrEqual(bound(n, dtype, size));
    const gram = vectors.T.matmul(vectors);
    expect(distance(gram, identity(n, dtype)), `${label}: orthogonality`).toBeLessThanOrEqual(bound(n, dtype, 1));
    const list = values(found);
    for (let i = 1; i < list.length; i++)
      if (i % n !== 0) expect(list[i]!, `${label}: order at ${i}`).toBeGreaterThanOrEqual(list[i - 1]!);
    return list;
  });
}

function expectSvd(a: Tensor, label: string): number[] {
  return scope(() => {
    const [m, n] = [a.shape.at(-2)!, a.shape.at(-1)!];
    const k = Math.min(m, n);
    const dtype = a.dtype as FloatDType;
    const { u, s, vh } = t.svd(a);
    expect([u.shape, s.shape, vh.shape]).toEqual([
      [...a.shape.slice(0, -2), m, k],
      [...a.shape.slice(0, -2), k],
      [...a.shape.slice(0, -2), k, n],
    ]);
    const size = largest(a.dataSync());
    const back = u.mul(s.unsqueeze(-2)).matmul(vh);
    const long = Math.max(m, n);
    expect(distance(back, a), `${label}: reconstruction`).toBeLessThanOrEqual(bound(long, dtype, size));
    for (const gram of [u.T.matmul(u), vh.matmul(vh.T)])
      expect(distance(gram, identity(k, dtype)), `${label}: orthogonality`).toBeLessThanOrEqual(bound(long, dtype, 1));
    const list = values(s);
    for (let i = 0; i < list.length; i++) {
      expect(list[i]!, `${label}: sign at ${i}`).toBeGreaterThanOrEqual(0);
      if (i % k !== 0) expect(list[i]!, `${label}: order at ${i}`).toBeLessThanOrEqual(list[i - 1]!);
    }
    return list;
  });
}

function expectQr(a: Tensor, label: string): void {
  scope(() => {
    const [m, n] = [a.shape.at(-2)!, a.shape.at(-1)!];
    const k = Math.min(m, n);
    const dtype = a.dtype as FloatDType;
    const { q, r } = t.qr(a);
    expect([q.shape, r.shape]).toEqual([
      [...a.shape.slice(0, -2), m, k],
      [...a.shape.slice(0, -2), k, n],
    ]);
    expect(distance(q.matmul(r), a), `${label}: reconstruction`).toBeLessThanOrEqual(
      bound(Math.max(m, n), dtype, largest(a.dataSync())),
    );
    expect(distance(q.T.matmul(q), identity(k, dtype)), `${label}: orthogonality`).toBeLessThanOrEqual(
      bound(m, dtype, 1),
    );
    expect(distance(t.tril(r, -1), r.mul(0)), `${label}: triangle`).toBe(0);
  });
}

describe.each(floatDTypes)("%s", (dtype) => {
  const matrix = (rows: number[][]) => t.tensor(rows, { dtype });
  const roundoff = 2 * unitRoundoff[dtype];

  describe("eigh", () => {
    it("computes a worked example", () => {
      // [[2, 1], [1, 2]]: 1 with (1, −1)/√2, 3 with (1, 1)/√2.
      const { values: found, vectors } = t.eigh(
        matrix([
          [2, 1],
          [1, 2],
        ]),
      );
      expectClose(values(found), [1, 3], { rtol: 4 * roundoff });
      const half = Math.SQRT1_2;
      expectClose(values(t.abs(vectors)), [half, half, half, half], { rtol: 4 * roundoff });
      expect(values(vectors)[0]! * values(vectors)[2]!).toBeLessThan(0);
      expectClose(values(t.eigh(matrix([[-3]])).values), [-3], { rtol: roundoff });
    });

    it("reads lower triangles alone", () => {
      const a = symmetric([2, 9, 9], 5, dtype);
      const junk = t.maskedFill(a, t.equal(t.tril(t.ones([2, 9, 9])), 0), nan);
      expect(values(t.eigh(junk).values)).toEqual(values(t.eigh(a).values));
    });

    it.each(sizes)("takes random matrices of size %i, alone and in batches", (n) => {
      expectEigh(symmetric([n, n], n, dtype), "one");
      expectEigh(symmetric([2, 3, n, n], n, dtype), "six");
      expectEigh(symmetric([n, n], n, dtype).T, "transposed");
    });

    it("gives a batch the bits of its matrices one by one, on the CPU", () => {
      const a = t.toDevice(symmetric([3, 40, 40], 4, dtype), "cpu");
      const all = t.eigh(a);
      for (let i = 0; i < 3; i++) {
        const one = t.eigh(a.slice(0, i, i + 1));
        expect(values(one.values)).toEqual(values(all.values.slice(0, i, i + 1)));
        expect(values(one.vectors)).toEqual(values(all.vectors.slice(0, i, i + 1)));
      }
    });

    it("finds known spectra", () => {
      // The second difference on n points: 2 − 2 cos(kπ / (n + 1)).
      const n = 60;
      const beside = t
        .eye(n + 1, n + 1, { dtype })
        .slice(0, 0, n)
        .slice(1, 1, n + 1);
      const chain = identity(n, dtype).mul(2).sub(beside).sub(beside.T);
      const expected = Array.from({ length: n }, (_, k) => 2 - 2 * Math.cos(((k + 1) * Math.PI) / (n + 1)));
      expectClose(expectEigh(chain, "chain"), expected, { atol: 16 * n * roundoff });
    });

    it("takes repeated eigenvalues, low rank, nothing but zeros, diagonals", () => {
      const q = orthonormal(50, 50, 3, dtype);
      const spectrum = Array.from({ length: 50 }, (_, i) => [-1, 0, 0, 2, 2][i % 5]!);
      const a = q.mul(t.tensor(spectrum, { dtype })).matmul(q.T);
      expectClose(
        expectEigh(a.add(a.T).mul(0.5), "repeated"),
        spectrum.sort((x, y) => x - y),
        { atol: bound(50, dtype, 1) },
      );
      expect(expectEigh(t.zeros([7, 7], { dtype }), "zeros")).toEqual(new Array(7).fill(0));
      expectClose(expectEigh(identity(6, dtype), "identity"), new Array(6).fill(1), { rtol: 8 * roundoff });
      const diagonal = identity(4, dtype).mul(t.tensor([3, -1, 2, 0], { dtype }));
      expectClose(expectEigh(diagonal, "diagonal"), [-1, 0, 2, 3], { atol: 8 * roundoff });
    });

    it("finds the small eigenvalues of graded matrices, and takes any scale", () => {
      // d a d with d = 10^-i: eigenvalues over 24 decimal places, each to nearly full precision when it decreases downwards.
      const n = 7;
      const grades = t.tensor(
        Array.from({ length: n }, (_, i) => 10 ** (-2 * i)),
        { dtype },
      );
      const plain = definite([n, n], 3, dtype).mul(grades.unsqueeze(1)).mul(grades);
      expect(Math.min(...expectEigh(plain, "graded"))).toBeGreaterThan(dtype === "float64" ? 0 : -1e-7);
      const base = symmetric([20, 20], 2, dtype);
      const reference = values(t.eigh(base).values);
      for (const exponent of dtype === "float32" ? [-120, 120] : [-1000, 1000]) {
        const scaled = t.eigh(base.mul(2 ** exponent)).values;
        expect(values(scaled).map((x) => x / 2 ** exponent)).toEqual(reference);
      }
    });

    it("of a matrix that isn't finite is NaN, and only that", () => {
      for (const bad of [nan, inf, -inf]) {
        const a = symmetric([3, 5, 5], 8, dtype).dataSync().slice();
        a[25 + 5] = bad; // below the diagonal of the second
        const { values: found, vectors } = t.eigh(t.tensor(a, { shape: [3, 5, 5] }));
        const finite = (x: Tensor) => values(x).filter((v) => !Number.isNaN(v)).length;
        expect([0, 1, 2].map((i) => finite(found.slice(0, i, i + 1)))).toEqual([5, 0, 5]);
        expect([0, 1, 2].map((i) => finite(vectors.slice(0, i, i + 1)))).toEqual([25, 0, 25]);
      }
    });
  });

  describe("svd", () => {
    it("computes a worked example", () => {
      const { u, s, vh } = t.svd(
        matrix([
          [0, -3],
          [2, 0],
          [0, 0],
        ]),
      );
      expectClose(values(s), [3, 2], { rtol: 4 * roundoff });
      expectClose(values(t.abs(u)), [1, 0, 0, 1, 0, 0], { atol: 4 * roundoff });
      expectClose(values(t.abs(vh)), [0, 1, 1, 0], { atol: 4 * roundoff });
      expectClose(values(t.svd(matrix([[-3]])).s), [3], { rtol: roundoff });
    });

    it.each(shapes)("takes random matrices [%i, %i], alone and in batches", (m, n) => {
      expectSvd(sample([m, n], m + n, { dtype }), "one");
      expectSvd(sample([2, 2, m, n], m + n, { dtype }), "four");
      expectSvd(sample([n, m], m + n, { dtype }).T, "transposed");
    });

    it("finds given singular values, repeated, tiny and 0", () => {
      for (const [m, n] of [
        [40, 30],
        [30, 40],
        [30, 30],
      ] as const) {
        const k = Math.min(m, n);
        const given = Array.from({ length: k }, (_, i) => (i < 10 ? 5 : i < 20 ? 2 ** -(i - 10) : i < 25 ? 1e-7 : 0));
        const a = orthonormal(m, k, 1, dtype)
          .mul(t.tensor(given, { dtype }))
          .matmul(orthonormal(n, k, 2, dtype).T);
        expectClose(expectSvd(a, `${m} × ${n}`), given, { atol: bound(m, dtype, 5) });
      }
      expect(expectSvd(t.zeros([5, 3], { dtype }), "zeros")).toEqual([0, 0, 0]);
      expectClose(expectSvd(t.ones([9, 6], { dtype }), "ones"), [Math.sqrt(54), 0, 0, 0, 0, 0], {
        atol: bound(9, dtype, 1),
      });
      expectClose(expectSvd(identity(5, dtype), "identity"), [1, 1, 1, 1, 1], { rtol: 8 * roundoff });
    });

    it("takes graded matrices and any scale", () => {
      const grades = t.tensor(
        Array.from({ length: 9 }, (_, i) => 10 ** (-3 * i)),
        { dtype },
      );
      expectSvd(sample([12, 9], 4, { dtype }).mul(grades), "graded columns");
      expectSvd(sample([9, 12], 4, { dtype }).mul(grades.unsqueeze(1)), "graded rows");
      const base = sample([15, 10], 2, { dtype });
      const reference = values(t.svd(base).s);
      for (const exponent of dtype === "float32" ? [-120, 120] : [-1000, 1000])
        expect(values(t.svd(base.mul(2 ** exponent)).s).map((x) => x / 2 ** exponent)).toEqual(reference);
    });

    it("keeps the digits of small singular values of bidiagonal matrices", () => {
      // Kahan-like: det = Π d, and the smallest singular value is det over the others.
      const d = [1, 2 ** -10, 2 ** -20, 2 ** -30];
      const a = t.tensor(
        d.map((x, i) => d.map((_, j) => (j === i ? x : j === i + 1 ? x : 0))),
        { dtype },
      );
      const s = values(t.svd(a).s);
      const determinant = d.reduce((p, x) => p * x);
      expectClose([s.reduce((p, x) => p * x)], [determinant], { rtol: 100 * roundoff });
    });

    it("of a matrix that isn't finite is NaN, and only that", () => {
      const a = sample([2, 4, 3], 8, { dtype }).dataSync().slice();
      a[5] = inf;
      const { u, s, vh } = t.svd(t.tensor(a, { shape: [2, 4, 3] }));
      for (const x of [u, s, vh]) {
        expect(values(x.slice(0, 0, 1)).every(Number.isNaN)).toBe(true);
        expect(values(x.slice(0, 1, 2)).every(Number.isFinite)).toBe(true);
      }
    });
  });

  describe("qr", () => {
    it("computes a worked example", () => {
      // A reflection takes (3, 4) to (−5, 0).
      const { q, r } = t.qr(
        matrix([
          [3, 1],
          [4, 2],
        ]),
      );
      expectClose(values(r), [-5, -2.2, 0, 0.4], { atol: 16 * roundoff });
      expectClose(values(q), [-0.6, -0.8, -0.8, 0.6], { atol: 8 * roundoff });
    });

    it.each(shapes)("takes random matrices [%i, %i], alone and in batches", (m, n) => {
      expectQr(sample([m, n], m + n, { dtype }), "one");
      expectQr(sample([2, 2, m, n], m + n, { dtype }), "four");
      expectQr(sample([n, m], m + n, { dtype }).T, "transposed");
    });

    it("takes dependent columns, zeros, graded columns and any scale", () => {
      const x = sample([20, 5], 3, { dtype });
      expectQr(t.concat([x, x.mul(2), x], 1), "dependent");
      expectQr(t.zeros([5, 3], { dtype }), "zeros");
      const grades = t.tensor(dtype === "float32" ? [1e30, 1, 1e-30, 1e-15, 1] : [1e300, 1, 1e-300, 1e-150, 1], {
        dtype,
      });
      const { q, r } = t.qr(x.mul(grades));
      expect(distance(q.T.matmul(q), identity(5, dtype))).toBeLessThanOrEqual(bound(20, dtype, 1));
      // Each column is as exact as if it had no scale.
      expect(distance(q.matmul(r.div(grades)), x)).toBeLessThanOrEqual(bound(20, dtype, 1));
    });

    it("of a matrix that isn't finite is NaN", () => {
      const { q, r } = t.qr(
        matrix([
          [1, nan],
          [2, 3],
        ]),
      );
      expect([...values(q), ...values(r)].every(Number.isNaN)).toBe(true);
    });
  });

  describe("cholesky", () => {
    it("computes a worked example", () => {
      const l = t.cholesky(
        matrix([
          [4, 99],
          [6, 10],
        ]),
      );
      expectClose(values(l), [2, 0, 3, 1], { rtol: 4 * roundoff });
      expectClose(values(t.cholesky(matrix([[9]]))), [3], { rtol: roundoff });
    });

    it.each(sizes)("takes matrices of size %i, alone and in batches", (n) => {
      for (const shape of [
        [n, n],
        [2, 2, n, n],
      ])
        scope(() => {
          const a = definite(shape, n, dtype);
          const l = t.cholesky(a);
          expect(distance(l.matmul(l.T), a)).toBeLessThanOrEqual(bound(n, dtype, largest(a.dataSync())));
          expect(largest(t.triu(l, 1).dataSync())).toBe(0);
          const b = sample([...shape.slice(0, -1), 3], 9, { dtype });
          const x = t.choleskySolve(l, b);
          expect(distance(a.matmul(x), b)).toBeLessThanOrEqual(bound(n * n, dtype, largest(a.dataSync())));
        });
    });

    it("refuses what isn't positive definite when the result is read, with its place", async () => {
      const good = [
        [2, 1],
        [1, 2],
      ];
      const a = t.tensor(
        [
          good,
          [
            [1, 2],
            [2, 1],
          ],
          [
            [-1, 0],
            [0, 1],
          ],
        ],
        { dtype },
      );
      const l = t.cholesky(a);
      await expect(l.data()).rejects.toMatchObject({
        code: "ERR_LINALG",
        message:
          "[cholesky] matrix 1 of the batch is not positive definite: pivot 1 is not positive. Add a multiple of the identity.",
      });
      await expect(l.sum().item()).rejects.toBeInstanceOf(t.LinearAlgebraError);
      const large = identity(200, dtype).dataSync().slice();
      large[170 * 201] = 0;
      await expect(t.cholesky(t.tensor(large, { shape: [200, 200] })).data()).rejects.toThrow(
        "matrix 0 of the batch is not positive definite: pivot 170",
      );
      expect(values(t.cholesky(matrix(good)))[0]).toBeCloseTo(Math.SQRT2, 6);
    });

    it("of a matrix that isn't finite is NaN, and doesn't fail", () => {
      expect(
        values(
          t.cholesky(
            matrix([
              [1, 0],
              [nan, 1],
            ]),
          ),
        ).every(Number.isNaN),
      ).toBe(true);
      expect(
        values(
          t.cholesky(
            matrix([
              [1, nan],
              [0, 1],
            ]),
          ),
        ),
      ).toEqual([1, 0, 0, 1]);
    });
  });

  describe("triangularSolve", () => {
    it.each([1, 2, 5, 16, 33, 70, 130])("solves all kinds of systems of size %i", (n) => {
      for (const upper of [false, true])
        for (const transpose of [false, true])
          for (const left of [true, false])
            for (const k of [1, 3, 150])
              scope(() => {
                // Well conditioned: a diagonal that outweighs the rest.
                const full = sample([2, n, n], n, { dtype })
                  .mul(1 / n)
                  .add(identity(n, dtype).mul(2));
                const l = (upper ? t.triu : t.tril)(full);
                const b = sample(left ? [2, n, k] : [2, k, n], k, { dtype });
                const x = t.triangularSolve(full, b, { upper, transpose, left });
                const op = transpose ? l.T : l;
                const back = left ? op.matmul(x) : x.matmul(op);
                expect(distance(back, b), `${upper} ${transpose} ${left} ${k}`).toBeLessThanOrEqual(bound(n, dtype, 3));
              });
    });

    it("broadcasts leading axes, and gives infinities for a zero on the diagonal", () => {
      const l = matrix([
        [2, 0],
        [1, 4],
      ]);
      const b = sample([3, 2, 1], 1, { dtype });
      expect(distance(l.matmul(t.triangularSolve(l, b)), b)).toBeLessThanOrEqual(8 * roundoff);
      const many = t.stack([l, l.mul(2)]);
      expect(t.triangularSolve(many, b.slice(0, 0, 1)).shape).toEqual([2, 2, 1]);
      expect(
        values(
          t.triangularSolve(
            matrix([
              [0, 0],
              [0, 1],
            ]),
            matrix([[1], [1]]),
          ),
        )[0],
      ).toBe(inf);
    });
  });

  it("of nothing is nothing", () => {
    for (const shape of [
      [0, 0],
      [0, 3, 3],
      [2, 0, 0],
    ]) {
      const a = t.zeros(shape, { dtype });
      expect(t.eigh(a).values.shape).toEqual(shape.slice(0, -1));
      expect(values(t.eigh(a).vectors)).toEqual([]);
      expect(values(t.cholesky(a))).toEqual([]);
      expect(t.triangularSolve(a, a).shape).toEqual(shape);
    }
    for (const [m, n] of [
      [0, 3],
      [3, 0],
    ] as const) {
      const { u, s, vh } = t.svd(t.zeros([2, m, n], { dtype }));
      expect([u.shape, s.shape, vh.shape]).toEqual([
        [2, m, 0],
        [2, 0],
        [2, 0, n],
      ]);
      const { q, r } = t.qr(t.zeros([2, m, n], { dtype }));
      expect([q.shape, r.shape]).toEqual([
        [2, m, 0],
        [2, 0, n],
      ]);
    }
  });
});

describe("what is refused", () => {
  const { eigh, svd, qr, cholesky } = t;

  it("names the argument, and says what to do", () => {
    const half = t.zeros([2, 2], { dtype: "bfloat16" });
    for (const [name, of] of Object.entries({ eigh, svd, qr, cholesky })) {
      expect(() => of(half)).toThrow(
        `[${name}] a must be float32 or float64; received bfloat16. Compute in float32: a.astype("float32").`,
      );
      expect(() => of(t.zeros([2, 2], { dtype: "int32" }))).toThrow(t.DTypeError);
      expect(() => of(t.zeros([3]))).toThrow(`[${name}] a must be […, M, N]; received [3].`);
    }
    for (const [name, of] of Object.entries({ eigh, cholesky }))
      expect(() => of(t.zeros([2, 3]))).toThrow(`[${name}] expected square matrices […, N, N]; a is [2, 3] float32.`);
    expect(() => t.triangularSolve(t.zeros([2, 2]), t.zeros([3, 2]))).toThrow(
      "[triangularSolve] b must be […, 2, K] for l [2, 2]; received [3, 2].",
    );
    expect(() => t.triangularSolve(t.zeros([2, 2]), t.zeros([2, 3]), { left: false })).toThrow("b must be […, K, 2]");
    expect(() => t.triangularSolve(t.zeros([2, 2]), t.zeros([2, 2], { dtype: "float64" }))).toThrow(/dtypes differ/);
  });
});

describe("random matrices (seeded)", () => {
  it("of any size and spectrum keep the bounds", () => {
    const next = generator(20);
    for (let round = 0; round < 40; round++) {
      const dtype = floatDTypes[round % 2]!;
      const [m, n] = [1 + Math.floor(next() * 60), 1 + Math.floor(next() * 60)];
      const decades = Math.floor(next() * 12);
      const spectrum = t.tensor(
        numbers(n, round).map((x) => x * 10 ** (-decades * Math.abs(x))),
        { dtype },
      );
      const q = orthonormal(n, n, round, dtype);
      const a = q.mul(spectrum).matmul(q.T);
      expectEigh(a.add(a.T).mul(0.5), `round ${round}`);
      expectSvd(sample([m, n], round, { dtype }).mul(spectrum), `round ${round}`);
      expectQr(sample([m, n], round, { dtype }).mul(spectrum), `round ${round}`);
    }
  });
});
