import { engine } from "@llmeff/native";
import { describe, expect, it, vi } from "vitest";
import { expectClose, sumError } from "../../test/compare.js";
import { sample } from "../../test/numbers.js";
import { positions, reader, table } from "../../test/plain.js";
import * as t from "../index.js";
import { scope, type Tensor } from "../index.js";
import { parseEinsum } from "./einsum-spec.js";

const values = (x: Tensor) => [...x.dataSync()];

/** The sum over all letters, one product at a time. */
function plainEinsum(spec: string, tensors: readonly Tensor[]): { shape: number[]; values: number[] } {
  const { inputs, output } = parseEinsum(
    spec,
    tensors.map((x) => x.rank),
  );
  const sizes = new Map<string, number>();
  for (const [i, labels] of inputs.entries())
    for (const [axis, label] of labels.entries())
      sizes.set(label, Math.max(sizes.get(label) ?? 1, tensors[i]!.shape[axis]!));
  const labels = [...output, ...[...sizes.keys()].filter((label) => !output.includes(label))];
  const shape = output.map((label) => sizes.get(label)!);
  const inner = labels.slice(output.length).map((label) => sizes.get(label)!);
  const readers = tensors.map(reader);
  return {
    shape,
    values: table(shape, (at) => {
      let sum = 0;
      for (const rest of positions(inner)) {
        const place = new Map(labels.map((label, i) => [label, [...at, ...rest][i]!]));
        const indices = inputs.map((own, i) =>
          own.map((label, axis) => (tensors[i]!.shape[axis] === 1 ? 0 : place.get(label)!)),
        );
        sum += readers.reduce((product, read, i) => product * read(indices[i]!), 1);
      }
      return sum;
    }),
  };
}

const cases: [spec: string, ...shapes: number[][]][] = [
  ["i->i", [3]],
  ["ij->ji", [2, 3]],
  ["ij", [2, 3]],
  ["ba", [2, 3]],
  ["ii", [3, 3]],
  ["ii->i", [3, 3]],
  ["iij->j", [3, 3, 2]],
  ["iijj->ij", [3, 3, 2, 2]],
  ["iii->i", [3, 3, 3]],
  ["ij->", [2, 3]],
  ["ij->j", [2, 3]],
  ["->", []],
  [",->", [], []],
  [",ij->ji", [], [2, 3]],
  ["i,i->", [4], [4]],
  ["i,i", [4], [4]],
  ["i,j->ji", [3], [4]],
  ["ij,jk", [2, 3], [3, 4]],
  ["ij,jk->ki", [2, 3], [3, 4]],
  ["ij,kj->ik", [2, 3], [4, 3]],
  ["ij,ij->", [2, 3], [2, 3]],
  ["ij,ji->", [2, 3], [3, 2]],
  ["ij,j->i", [2, 3], [3]],
  ["ij,ij->i", [2, 3], [2, 3]],
  ["bij,bjk->bik", [2, 3, 4], [2, 4, 5]],
  ["ijb,jkb->bki", [3, 4, 2], [4, 5, 2]],
  ["bthd,bshd->bhts", [2, 3, 2, 4], [2, 5, 2, 4]],
  ["bhts,bshd->bthd", [2, 2, 3, 5], [2, 5, 2, 4]],
  ["abcd,cbe->aed", [2, 3, 2, 3], [2, 3, 4]],
  ["abcd,abcd->", [2, 3, 2, 3], [2, 3, 2, 3]],
  ["ij,kl->", [2, 3], [4, 2]],
  ["ij,jk,kl->il", [2, 3], [3, 4], [4, 2]],
  ["i,ij,j->", [2], [2, 3], [3]],
  ["bi,oij,bj->bo", [2, 3], [4, 3, 5], [2, 5]],
  ["i,i,i,i->i", [3], [3], [3], [3]],
  ["ab,bc,cd,de,ea->", [2, 3], [3, 2], [2, 4], [4, 3], [3, 2]],
  ["...", [2, 3]],
  ["...i->...", [2, 3, 4]],
  ["i...->...i", [2, 3, 4]],
  ["...ij,...jk->...ik", [2, 3, 4], [2, 4, 5]],
  ["...ij,...jk->...ik", [2, 1, 3, 4], [5, 4, 2]],
  ["...ij,jk->...ik", [2, 3, 4], [4, 5]],
  ["...,...", [2, 1], [3]],
  ["b...d,b...d->b...", [2, 3, 4], [2, 3, 4]],
  ["... i j , j k -> k ... i", [2, 3, 4], [4, 5]],
  ["Aa,aB->BA", [2, 3], [3, 4]],
];

describe("einsum", () => {
  it("computes a worked example", () => {
    const a = t.tensor([
      [1, 2],
      [3, 4],
    ]);
    const b = t.tensor([
      [5, 6],
      [7, 8],
    ]);
    // [1·5 + 2·7, 1·6 + 2·8], [3·5 + 4·7, 3·6 + 4·8]
    expect(values(t.einsum("ij,jk->ik", a, b))).toEqual([19, 22, 43, 50]);
    expect(t.einsum("ii", a).itemSync()).toBe(5);
    expect(t.einsum("ij,ij->", a, b).itemSync()).toBe(70);
  });

  it.each(cases)("is the plain sum of products: %s of %j", (spec, ...shapes) => {
    scope(() => {
      const tensors = shapes.map((shape, i) => sample(shape, i + 1));
      const expected = plainEinsum(spec, tensors);
      const out = t.einsum(spec, ...tensors);
      expect(out.shape).toEqual(expected.shape);
      // Products of numbers below 1, summed over at most all elements of the operands.
      const terms = tensors.reduce((n, x) => n * x.size, 1);
      expectClose(out.dataSync(), expected.values, { atol: terms ** 0.5 * sumError(terms, "float64") }, spec);
      const flipped = tensors.map((x) => t.flip(x, [...x.shape.keys()]).clone());
      const views = flipped.map((x) => t.flip(x, [...x.shape.keys()]));
      expectClose(
        t.einsum(spec, ...views).dataSync(),
        expected.values,
        { atol: terms ** 0.5 * sumError(terms, "float64") },
        `${spec} of views`,
      );
    });
  });

  it("of empty operands gives zeros, or nothing", () => {
    expect(values(t.einsum("ij,jk->ik", t.zeros([2, 0]), t.zeros([0, 3])))).toEqual(new Array(6).fill(0));
    expect(t.einsum("ij,jk->ik", t.zeros([0, 2]), t.zeros([2, 3])).shape).toEqual([0, 3]);
    expect(t.einsum("ij->", t.zeros([0, 2])).itemSync()).toBe(0);
  });

  it("makes one product of heads without copying them", () => {
    const copy = vi.spyOn(engine().op, "copy");
    const matmul = vi.spyOn(engine().op, "matmul");
    scope(() => {
      const q = sample([2, 3, 2, 4], 1);
      const k = sample([2, 5, 2, 4], 2);
      const scores = t.einsum("bthd,bshd->bhts", q, k);
      t.einsum("bhts,bshd->bthd", scores, k);
    });
    expect(matmul).toHaveBeenCalledTimes(2);
    expect(copy).not.toHaveBeenCalled();
    vi.restoreAllMocks();
  });

  it("takes the cheapest pair first", () => {
    const matmul = vi.spyOn(engine().op, "matmul");
    scope(() => {
      const shapes: number[] = [];
      matmul.mockClear();
      t.einsum("ij,jk,k->i", sample([30, 20], 1), sample([20, 10], 2), sample([10], 3));
      for (const [, , , out] of matmul.mock.calls) shapes.push(out as number);
      expect(shapes.length).toBe(2); // matrix · (matrix · vector): 20·10 + 30·20 products, not 30·20·10
    });
    vi.restoreAllMocks();
  });

  const f = (...shape: number[]) => t.zeros(shape);
  it.each([
    ["ij,jk->ik", [f(2, 3)], "ERR_OPTION", '"ij,jk->ik" is for 2 operands; received 1'],
    ["i->i->i", [f(2)], "ERR_OPTION", "expected letters and at most one ..."],
    ["i1->i", [f(2, 2)], "ERR_OPTION", 'received "i1->i"'],
    ["..i->i", [f(2, 2)], "ERR_OPTION", "at most one ..."],
    ["...i...->i", [f(2, 2)], "ERR_OPTION", "at most one ..."],
    [undefined as never, [f(2)], "ERR_OPTION", "received undefined"],
    ["ij->ik", [f(2, 2)], "ERR_OPTION", 'names "k", which no operand has'],
    ["ij->ii", [f(2, 2)], "ERR_OPTION", 'names "i" twice'],
    ["...i->i", [f(2, 2)], "ERR_OPTION", "which the result must have too"],
    ["ijk->i", [f(2, 2)], "ERR_SHAPE", 'operand 1 has 2 axes; "ijk" names 3'],
    ["i->i", [f(2, 2)], "ERR_SHAPE", 'operand 1 has 2 axes; "i" names 1'],
    ["ij,jk->ik", [f(2, 3), f(4, 5)], "ERR_SHAPE", '"j" stands for sizes 3 and 4; the operands are [2, 3], [4, 5]'],
    ["ii->i", [f(2, 3)], "ERR_SHAPE", '"i" stands for sizes 2 and 3'],
    ["ij,jk->ik", [f(2, 1), f(4, 5)], "ERR_SHAPE", '"j" stands for sizes 1 and 4'],
    ["...i,...i->...", [f(2, 3), f(4, 3)], "ERR_SHAPE", "... stands for sizes 2 and 4"],
    ["i->i", [t.tensor(Int32Array.of(1))], "ERR_DTYPE", "operand 1 must have a floating-point dtype; received int32"],
    ["i,i->i", [f(2), t.zeros([2], { dtype: "float64" })], "ERR_DTYPE", "dtypes differ"],
    ["abcd,efghi->abcdefghi", [f(1, 1, 1, 1), f(1, 1, 1, 1, 1)], "ERR_SHAPE", "9 axes; the most are 8"],
  ] as const)("refuses %s", (spec, operands, code, message) => {
    expect(() => t.einsum(spec, ...operands)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    );
  });
});
