import { describe, expect, it } from "vitest";
import { sample, sampleIds } from "../../test/numbers.js";
import { counted, positions, reader, table } from "../../test/plain.js";
import * as t from "../index.js";
import { type DType, scope, type Tensor } from "../index.js";

const values = (x: Tensor) => [...x.dataSync()];
const ids = (...list: number[]) => t.tensor(Int32Array.from(list));

/** x, index shape and axis: rows and elements, views, sizes about those of vectors and bands. */
const cases: [shape: number[], axis: number, count: number, view: (x: Tensor) => Tensor][] = [
  [[5], 0, 9, (x) => x],
  [[5, 3], 0, 4, (x) => x],
  [[5, 3], 1, 7, (x) => x],
  [[3, 5], 0, 4, (x) => x.T],
  [[2, 7, 3], 1, 5, (x) => x.permute([2, 1, 0])],
  [[6, 130], 0, 9, (x) => x],
  [[6, 129], 1, 200, (x) => t.flip(x, 1)],
  [[1, 17], 0, 33, (x) => x],
  [[4, 1], 0, 65, (x) => x.expand([4, 31])],
];

function gathered(x: Tensor, axis: number, indices: Tensor): number[] {
  const [at, index] = [reader(x), reader(indices)];
  return table(indices.shape, (p) => at(p.with(axis, index(p))));
}

function scattered(x: Tensor, axis: number, indices: Tensor, src: Tensor): number[] {
  const out = new Map<string, number>();
  const [at, index, add] = [reader(x), reader(indices), reader(src)];
  for (const p of positions(x.shape)) out.set(p.join(), at(p));
  for (const p of positions(src.shape)) {
    const target = p.with(axis, index(p)).join();
    out.set(target, out.get(target)! + add(p));
  }
  return [...out.values()];
}

describe("gather", () => {
  it("computes a worked example", () => {
    const x = t.tensor([
      [10, 11, 12],
      [20, 21, 22],
    ]);
    expect(values(t.gather(x, 1, t.tensor(Int32Array.of(2, 0), { shape: [2, 1] })))).toEqual([12, 20]);
    expect(values(t.gather(x, 0, t.tensor(Int32Array.of(1, 0, 1), { shape: [1, 3] })))).toEqual([20, 11, 22]);
  });

  it.each(cases)("agrees with its definition: %j, axis %i, %i indices", (shape, axis, count, view) => {
    scope(() => {
      const x = view(counted(shape));
      const indices = sampleIds(x.shape.with(axis, count), 1, x.shape[axis]!);
      expect(values(t.gather(x, axis, indices))).toEqual(gathered(x, axis, indices));
      const backwards = t.flip(indices, axis);
      expect(values(t.gather(x, axis, backwards))).toEqual(gathered(x, axis, backwards));
      if (x.rank === 1) return;
      const fewer = indices.slice(axis === 0 ? 1 : 0, 0, 1);
      expect(values(t.gather(x, axis, fewer))).toEqual(gathered(x, axis, fewer));
    });
  });

  it.each(["float32", "float64", "bfloat16", "float16", "int32", "uint8", "bool"] as DType[])("moves %s", (dtype) => {
    const x = t.tensor(
      [
        [1, 0],
        [0, 1],
        [1, 1],
      ],
      { dtype },
    );
    const bits = x.dataSync();
    const out = t.gather(x, 0, t.tensor(Int32Array.of(2, 0), { shape: [1, 2] }));
    expect(out.dtype).toBe(dtype);
    expect(values(out)).toEqual([bits[4], bits[1]]);
    expect(values(t.indexSelect(x, 0, ids(1, 2)))).toEqual([bits[2], bits[3], bits[4], bits[5]]);
  });

  it("of nothing is nothing", () => {
    expect(t.gather(t.zeros([2, 3]), 1, t.tensor(new Int32Array(0), { shape: [2, 0] })).shape).toEqual([2, 0]);
    expect(t.indexSelect(t.zeros([0, 3]), 1, ids(2, 2)).shape).toEqual([0, 2]);
    const grad = t.grad((x: Tensor) => t.indexSelect(x, 0, ids()).sum(), t.ones([2, 2]));
    expect(values(grad)).toEqual([0, 0, 0, 0]);
  });
});

describe("scatterAdd", () => {
  it("computes a worked example", () => {
    const out = t.scatterAdd(t.tensor([1, 1, 1]), 0, ids(2, 0, 2), t.tensor([10, 20, 30]));
    expect(values(out)).toEqual([21, 1, 41]);
  });

  it.each(cases)("agrees with its definition: %j, axis %i, %i indices", (shape, axis, count, view) => {
    scope(() => {
      const x = view(counted(shape));
      const indices = sampleIds(x.shape.with(axis, count), 2, x.shape[axis]!);
      const src = counted([...indices.shape]);
      const expected = scattered(x, axis, indices, src);
      expect(values(t.scatterAdd(x, axis, indices, src))).toEqual(expected);
      expect(values(t.scatterAdd(x.astype("int32"), axis, indices, src.astype("int32")))).toEqual(expected);
      const rows = src.permute([...src.shape.keys()].reverse()).clone();
      const back = rows.permute([...src.shape.keys()].reverse());
      expect(values(t.scatterAdd(x, axis, indices, back))).toEqual(expected);
    });
  });

  it("adds 16-bit numbers in float32 and rounds once", () => {
    for (const dtype of ["bfloat16", "float16"] as const) {
      // One by one the ones would be lost: neighbours of 4096 lie 32 apart in bfloat16 and 4 in float16.
      const x = t.tensor([4096, 1], { dtype });
      const out = t.scatterAdd(x, 0, ids(...new Array<number>(24).fill(0)), t.ones([24], { dtype }));
      expect(values(out.astype("float32")), dtype).toEqual([dtype === "bfloat16" ? 4128 : 4120, 1]);
      const grad = t.grad(
        (y: Tensor) =>
          t
            .indexSelect(y, 0, ids(1, 1, 0))
            .astype("float32")
            .sum(),
        x,
      );
      expect(grad.dtype).toBe(dtype);
      expect(values(grad.astype("float32"))).toEqual([1, 2]);
    }
  });

  it("adds equal targets in the order of their positions, however the work is cut", () => {
    scope(() => {
      // 3000 rows of 40 into 7 targets: cut into ranges of targets. Rounding in float32 shows the order.
      const src = sample([3000, 40], 1, { dtype: "float32" });
      const which = sampleIds([3000], 2, 7);
      const out = t.indexAdd(t.zeros([7, 40]), 0, which, src);
      const expected = new Float32Array(280);
      const [rows, targets] = [src.dataSync(), which.dataSync()];
      for (let i = 0; i < 3000; i++) for (let j = 0; j < 40; j++) expected[targets[i]! * 40 + j]! += rows[i * 40 + j]!;
      expect(out.dataSync()).toEqual(expected);
    });
  });
});

describe("indexSelect and indexAdd", () => {
  it.each([0, 1, 2])("take and add along axis %i", (axis) => {
    scope(() => {
      const x = counted([4, 5, 35]).permute([1, 2, 0]);
      const which = sampleIds([6], 3, x.shape[axis]!);
      const list = which.dataSync();
      const at = reader(x);
      const shape = x.shape.with(axis, 6);
      expect(values(t.indexSelect(x, axis, which))).toEqual(table(shape, (p) => at(p.with(axis, list[p[axis]!]!))));
      const src = counted(shape);
      const all = t.tensor(Int32Array.from(table(shape, (p) => list[p[axis]!]!)), { shape });
      expect(values(t.indexAdd(x, axis, which, src))).toEqual(scattered(x, axis, all, src));
    });
  });
});

describe("indexCopyInto", () => {
  it.each(cases)("agrees with its definition: %j, axis %i", (shape, axis, _count, view) => {
    scope(() => {
      for (const dtype of ["float32", "float64", "bfloat16", "int32", "uint8"] as const) {
        const target = view(counted(shape)).astype(dtype);
        const N = Math.ceil(target.shape[axis]! / 2);
        const which = Int32Array.from({ length: N }, (_, i) => target.shape[axis]! - 1 - i);
        const source = t.add(view(counted(shape)).slice(axis, 0, N), 100).astype(dtype);
        const [before, row] = [reader(target.astype("float64")), reader(source.astype("float64"))];
        const expected = table(target.shape, (p) => {
          const i = which.indexOf(p[axis]!);
          return i < 0 ? before(p) : row(p.with(axis, i));
        });
        // A target in strides, beside memory that stays as it is.
        const wider = t.zeros([...target.shape, 2], { dtype });
        const strided = wider.slice(-1, 0, 1).view(target.shape, wider.strides.slice(0, -1));
        t.copyInto(strided, target);
        for (const into of [target.clone(), strided]) {
          expect(t.indexCopyInto(into, axis, ids(...which), source)).toBe(into);
          expect(values(into.astype("float64"))).toEqual(expected);
        }
        expect(values(wider.slice(-1, 1).astype("float64")).every((value) => value === 0)).toBe(true);
      }
    });
  });

  it("reads rows of the target itself before it writes any", () => {
    scope(() => {
      const x = counted([50, 40]);
      const reversed = values(t.flip(x, 0));
      t.indexCopyInto(x, 0, ids(...Array.from({ length: 50 }, (_, i) => 49 - i)), x);
      expect(values(x)).toEqual(reversed);
    });
  });

  it("has a number outside the axis told when the target is read", async () => {
    const x = t.ones([3, 2]);
    t.indexCopyInto(x, 0, ids(0, 3), t.zeros([2, 2]));
    const message = expect.stringContaining("is outside axis 0, which has 3 elements");
    await expect(x.data()).rejects.toMatchObject({ code: "ERR_INDEX", message });
  });

  it("follows its positions in a captured step", () => {
    scope(() => {
      const cache = t.zeros([4, 2]);
      using step = t.captureStep(({ at, row }) => t.indexCopyInto(cache, 0, at, row).sum({ axis: 1 }), {
        inputs: { at: { shape: [1], dtype: "int32" }, row: { shape: [1, 2] } },
        warmup: 1,
      });
      const sums = [0, 1, 2, 3].map((i) => values(step({ at: Int32Array.of(i), row: Float32Array.of(i + 1, 10) })));
      expect(step.mode).toBe("captured");
      expect(sums).toEqual([
        [11, 0, 0, 0],
        [11, 12, 0, 0],
        [11, 12, 13, 0],
        [11, 12, 13, 14],
      ]);
    });
  });
});

describe("oneHot", () => {
  it("marks the class of each id", () => {
    const x = t.oneHot(t.tensor(Int32Array.of(2, 0), { shape: [2, 1] }), 3);
    expect(x.shape).toEqual([2, 1, 3]);
    expect(values(x)).toEqual([0, 0, 1, 1, 0, 0]);
    for (const dtype of ["float64", "int32", "uint8", "bool"] as const) {
      expect(t.oneHot(ids(1), 2, { dtype })).toMatchObject({ dtype, shape: [1, 2] });
      expect(values(t.oneHot(ids(1), 2, { dtype }))).toEqual([0, 1]);
    }
    expect(t.oneHot(ids(), 4).shape).toEqual([0, 4]);
    expect(values(t.oneHot(t.tensor(1, { dtype: "int32" }), 2))).toEqual([0, 1]);
  });
});

describe("indices that are wrong", () => {
  it("outside the axis are found when the values are read, the first in row-major order, with the place of the call", async () => {
    const x = t.zeros([2, 3]);
    const message = "[gather] index 3 at position 1 is outside axis 1, which has 3 elements";
    const bad = t.tensor(Int32Array.of(0, 3, -1, 2), { shape: [2, 2] });
    await expect(t.gather(x, 1, bad).data()).rejects.toMatchObject({
      code: "ERR_INDEX",
      message: expect.stringContaining(message),
      stack: expect.stringMatching(/queued[\s\S]*gather\.test\.ts/),
    });
    const calls: [() => Tensor, string][] = [
      [() => t.indexSelect(x, 0, ids(0, 2)), "index 2"],
      [() => t.indexSelect(x, 1, ids(0, -1)), "index -1"],
      [() => t.scatterAdd(x, 1, bad, t.ones([2, 2])), "[scatterAdd] index 3 at position 1 is outside axis 1"],
      [() => t.indexAdd(x, 0, ids(0, 9), x), "index 9"],
      [() => t.oneHot(ids(0, 5), 4), "index 5"],
    ];
    for (const [call, part] of calls) {
      await expect(call().data()).rejects.toMatchObject({ code: "ERR_INDEX", message: expect.stringContaining(part) });
    }
  });

  it.each([
    [() => t.gather(t.zeros([2, 3]), 0, t.zeros([1, 3])), "ERR_DTYPE", "indices must be int32"],
    [() => t.gather(t.zeros([2, 3]), 0, ids(1)), "ERR_SHAPE", "Use expand() to repeat them"],
    [() => t.gather(t.zeros([2, 3]), 0, sampleIds([1, 4], 1, 2)), "ERR_SHAPE", "none longer but axis 0"],
    [() => t.gather(t.zeros([0, 3]), 0, sampleIds([1, 3], 1, 1)), "ERR_SHAPE", "no elements to choose from"],
    [() => t.gather(t.zeros([2]), 1, ids(1)), "ERR_SHAPE", "-1..0"],
    [() => t.indexSelect(t.zeros([2]), 0, sampleIds([1, 1], 1, 2)), "ERR_SHAPE", "ids must be [N]"],
    [() => t.scatterAdd(t.zeros([2]), 0, ids(1), t.zeros([2])), "ERR_SHAPE", "src must be [1]; received [2]"],
    [() => t.scatterAdd(t.zeros([2]), 0, ids(1), ids(1)), "ERR_DTYPE", "dtypes differ: x is float32 and src is int32"],
    [() => t.indexAdd(t.zeros([2], { dtype: "uint8" }), 0, ids(1), t.zeros([1])), "ERR_DTYPE", "uint8"],
    [() => t.indexCopyInto(t.zeros([2]), 0, ids(1), t.zeros([2])), "ERR_SHAPE", "src must be [1]; received [2]"],
    [() => t.indexCopyInto(t.zeros([2]), 0, ids(1), ids(1)), "ERR_DTYPE", "x is float32 and src is int32"],
    [() => t.indexCopyInto(t.zeros([2]), 0, t.zeros([1]), t.zeros([1])), "ERR_DTYPE", "ids must be int32"],
    [() => t.oneHot(ids(1), -1), "ERR_OPTION", "classes must be a non-negative integer"],
    [() => t.oneHot(ids(1), 0), "ERR_SHAPE", "no elements to choose from"],
  ])("in form are refused at the call (%#)", (call, code, message) => {
    expect(call).toThrow(expect.objectContaining({ code, message: expect.stringContaining(message) }));
  });
});
