/** Views, gathering, scans, order, and einsum. */
import type { Tensor } from "../../src/index.js";
import * as t from "../../src/index.js";
import { sampleIds } from "../numbers.js";
import type { OpCase } from "../op-cases.js";

const ids = (...values: number[]) => t.tensor(Int32Array.from(values));
const pairs = (rows: number, columns: number, ...list: number[]) => ids(...list).reshape([rows, columns]);
const one = (name: string, shape: number[], compute: (x: Tensor) => Tensor): OpCase => ({
  name,
  inputs: [shape],
  compute: (x) => compute(x!),
});
const einsum = (spec: string, ...inputs: number[][]): OpCase => ({
  name: `einsum ${spec} of ${inputs.length}`,
  inputs,
  terms: 256,
  compute: (...xs) => t.einsum(spec, ...xs),
});

const views: OpCase[] = [
  one("squeeze and unsqueeze", [3, 1, 4], (x) => x.squeeze(1).unsqueeze(0).squeeze().mul(2)),
  one("flatten of a transposed view", [2, 3, 4], (x) => x.T.flatten(1)),
  one("movedim", [2, 3, 4], (x) => t.movedim(x, 0, -1)),
  one("slice with a step", [7, 3], (x) => x.slice(0, 1, undefined, 3)),
  one("slice backwards", [7, 3], (x) => x.slice(0, -2, 0, -2).mul(x.slice(0, 0, 3))),
  one("flip", [3, 4], (x) => t.flip(x, [0, 1])),
  one("diagonal", [2, 3, 5], (x) => t.diagonal(x, 1)),
  one("split", [5, 2], (x) => {
    const [a, b] = t.split(x, [2, 3]);
    return t.concat([b!.mul(b!), a!]);
  }),
  {
    name: "stack",
    inputs: [
      [2, 3],
      [2, 3],
    ],
    compute: (a, b) => t.stack([a!, b!, a!], 1),
  },
  one("pad", [2, 3], (x) =>
    t.pad(
      x,
      [
        [1, 0],
        [2, 3],
      ],
      0.5,
    ),
  ),
  one("roll", [2, 5], (x) => t.roll(x, 7, 1)),
  one("tile", [2, 3], (x) => t.tile(x, [2, 3])),
  one("repeat", [2, 3], (x) => t.repeat(x, 2, 0)),
];
const indexing: OpCase[] = [
  one("gather of the last axis", [3, 5], (x) => t.gather(x, -1, sampleIds([3, 7], 1, 5))),
  one("gather of the first axis", [5, 3], (x) => t.gather(x, 0, sampleIds([7, 3], 2, 5))),
  one("gather of fewer rows from a transposed view", [5, 3, 4], (x) => t.gather(x.T, 1, sampleIds([4, 4, 3], 3, 3))),
  {
    name: "scatterAdd",
    inputs: [
      [4, 3],
      [6, 3],
    ],
    compute: (x, src) => t.scatterAdd(x!, 0, sampleIds([6, 3], 4, 4), src!),
  },
  {
    name: "scatterAdd of fewer columns",
    inputs: [
      [2, 5],
      [2, 9],
    ],
    compute: (x, src) => t.scatterAdd(x!, 1, sampleIds([2, 9], 5, 5), src!.mul(src!)),
  },
  one("indexSelect", [5, 20], (x) => t.indexSelect(x, 0, ids(4, 0, 4, 4, 1))),
  one("indexSelect of columns", [3, 5], (x) => t.indexSelect(x, 1, ids(4, 0, 4))),
  {
    name: "indexAdd",
    inputs: [
      [4, 20],
      [3, 20],
    ],
    compute: (x, src) => t.indexAdd(x!, 0, ids(3, 1, 3), src!),
  },
  {
    name: "gatherSum with weights, of which one counts for nothing",
    inputs: [
      [4, 20],
      [3, 2],
    ],
    compute: (x, weights) =>
      t.gatherSum(x!, pairs(3, 2, 0, 3, -1, 3, 2, 3), pairs(4, 3, 0, -1, -1, -1, -1, -1, 4, -1, -1, 1, 3, 5), weights!),
  },
  one("gatherSum", [3, 4], (x) => t.gatherSum(x, pairs(2, 2, 1, 0, 1, -1), pairs(3, 2, 1, -1, 0, 2, -1, -1))),
  one("triu", [2, 3, 4], (x) => t.triu(x, 1)),
  one("tril", [4, 3], (x) => t.tril(x, -1)),
  one("maskedFill", [3, 4], (x) => t.maskedFill(x, t.equal(t.tensor([1, 0, 1, 0]), 1), -2)),
];
const order: OpCase[] = [
  one("cumsum", [3, 9], (x) => t.cumsum(x, 1)),
  one("cumsum of columns", [9, 3], (x) => t.cumsum(x, 0)),
  one("cumsum from the end of a transposed view", [9, 3], (x) => t.cumsum(x.T, 1, { reverse: true })),
  one("sort", [3, 7], (x) => t.sort(x).values),
  one("sort of the first axis, descending", [7, 3], (x) => t.sort(x, { axis: 0, descending: true }).values),
  one("topK", [3, 40], (x) => t.topK(x, 2).values),
  one("topK, smallest of the first axis", [9, 3], (x) => t.topK(x, 4, { axis: 0, largest: false }).values),
];
const contractions: OpCase[] = [
  einsum("ij,jk->ik", [3, 4], [4, 5]),
  einsum("ij->ji", [3, 4]),
  einsum("ij->", [3, 4]),
  einsum("...ii->...", [2, 3, 3]),
  einsum("bhtd,bhsd->bhts", [2, 2, 3, 4], [2, 2, 5, 4]),
  einsum("bthd,bshd->bhts", [2, 3, 2, 4], [2, 5, 2, 4]),
  einsum("i,j->ij", [3], [4]),
  einsum("ij,ij->ij", [3, 4], [3, 4]),
  einsum("abcd,dbe->ace", [2, 3, 2, 4], [4, 3, 2]),
  einsum("ij,jk,kl,l->i", [3, 4], [4, 2], [2, 5], [5]),
  einsum("...ij,...jk", [2, 1, 3, 4], [5, 4, 2]),
  einsum("iij,jk->ki", [3, 3, 2], [2, 4]),
  einsum("ijk,lk->l", [2, 3, 4], [5, 4]),
];

export const indexingCases: readonly OpCase[] = [...views, ...indexing, ...order, ...contractions];
