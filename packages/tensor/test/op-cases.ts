/** One table of all differentiable operations, for checks of gradients and of instruction sets. */

import { accumulationDType } from "../src/dtype.js";
import type { Tensor } from "../src/index.js";
import * as t from "../src/index.js";
import { attentionCases } from "./cases/attention.js";
import { convolutionCases } from "./cases/convolutions.js";
import { elementwiseCases } from "./cases/elementwise.js";
import { indexingCases } from "./cases/indexing.js";
import { linalgCases } from "./cases/linalg.js";
import { elementLossCases } from "./cases/losses.js";
import { normCases } from "./cases/norms.js";
import { productCases } from "./cases/products.js";
import { reductionCases } from "./cases/reductions.js";
import { sample, sampleIds } from "./numbers.js";

export interface OpCase {
  name: string;
  /** Shapes of the differentiable inputs. */
  inputs: number[][];
  /** The inputs' range; default [-1, 1). */
  range?: [low: number, high: number];
  /** Of the inputs' numbers; one is chosen where the first would bring two numbers close to a tie. */
  seed?: number;
  /** Computes on the inputs; a result of any shape. */
  compute(...inputs: Tensor[]): Tensor;
  /** The most terms that are added up for one result or gradient, for the tolerance; default 64. */
  terms?: number;
}

const qkv = (T: number, S: number, H: number, K: number, D: number, Dv = D) => [
  [2, T, H, D],
  [2, S, K, D],
  [2, S, K, Dv],
];
const pairs = (N: number, H: number, K: number, D: number, Dv = D) => [
  [2, N, H, D],
  [2, N, K, D],
  [2, N, K, D],
  [2, N, K, Dv],
  [2, N, K, Dv],
];
const targets = (seed: number, rows: number, classes: number, ignored = false) => {
  const ids = sampleIds([rows], seed, classes).dataSync();
  if (ignored) ids[0] = -100;
  return t.tensor(ids);
};
const lossOptions = { labelSmoothing: 0.1, zLoss: 0.01, softcap: 3 };
const cube = t.defineOp<undefined>({
  name: "cube",
  forward(context, [x]) {
    context.save(x!);
    return x!.mul(x!).mul(x!);
  },
  backward: ({ saved: [x] }, dout) => [dout.mul(x!.square().mul(3))],
});

const views: OpCase[] = [
  { name: "reshape", inputs: [[3, 4]], compute: (x) => x!.reshape([2, -1]) },
  { name: "reshape of a transposed view", inputs: [[3, 4]], compute: (x) => x!.T.reshape([2, 6]) },
  { name: "permute", inputs: [[2, 3, 4]], compute: (x) => x!.permute([2, 0, 1]) },
  { name: "transpose", inputs: [[2, 3, 4]], compute: (x) => x!.transpose(0, -1) },
  { name: "slice", inputs: [[5, 4]], compute: (x) => x!.slice(0, 1, -1) },
  { name: "overlapping slices", inputs: [[6]], compute: (x) => x!.slice(0, 0, 4).mul(x!.slice(0, 2, 6)) },
  { name: "expand", inputs: [[3, 1]], compute: (x) => x!.expand([2, 3, 4]) },
  {
    name: "a chain of views",
    inputs: [[2, 3, 4]],
    compute: (x) =>
      x!.permute([1, 0, 2]).slice(0, 1).reshape([4, 4]).T.slice(1, 0, 3).reshape([1, 12]).expand([3, 12]).mul(2),
  },
  {
    name: "concat",
    inputs: [
      [2, 3],
      [2, 1],
      [2, 2],
    ],
    compute: (a, b, c) => t.concat([a!, b!, c!], 1),
  },
  { name: "concat of one tensor twice", inputs: [[2, 3]], compute: (a) => t.concat([a!, a!.mul(2), a!], 0) },
  { name: "clone", inputs: [[3, 4]], compute: (x) => x!.T.clone() },
  {
    name: "astype",
    inputs: [[3, 4]],
    compute: (x) => x!.astype("float64").mul(1).astype(x!.dtype),
  },
  { name: "where", inputs: [[3, 4], [4]], compute: (a, b) => t.where(t.greater(a!.detach(), 0), a!, b!) },
  {
    name: "where, broadcast condition",
    inputs: [
      [2, 3],
      [2, 1],
    ],
    compute: (a, b) => t.where(t.equal(t.tensor([1, 0, 1]), 1), a!, b!),
  },
];
const layers: OpCase[] = [
  {
    name: "matmul",
    inputs: [
      [3, 4],
      [4, 5],
    ],
    compute: (a, b) => t.matmul(a!, b!),
  },
  {
    name: "matmul, larger than a tile",
    inputs: [
      [33, 65],
      [65, 17],
    ],
    terms: 65,
    compute: (a, b) => t.matmul(a!, b!),
  },
  {
    name: "matmul of transposed views",
    inputs: [
      [4, 3],
      [5, 4],
    ],
    compute: (a, b) => t.matmul(a!.T, b!.T),
  },
  {
    name: "matmul, broadcast batches",
    inputs: [
      [2, 1, 3, 4],
      [5, 4, 2],
    ],
    compute: (a, b) => t.matmul(a!, b!),
  },
  { name: "matmul of a vector and a matrix", inputs: [[4], [4, 5]], compute: (a, b) => t.matmul(a!, b!) },
  { name: "matmul of a matrix and a vector", inputs: [[3, 4], [4]], compute: (a, b) => t.matmul(a!, b!) },
  { name: "matmul of vectors", inputs: [[4], [4]], compute: (a, b) => t.matmul(a!, b!) },
  {
    name: "matmul of a strided view",
    inputs: [
      [3, 2, 4],
      [4, 5],
    ],
    compute: (a, b) => t.matmul(a!.slice(1, 1, 2).reshape([3, 4]), b!),
  },
  {
    name: "linear",
    inputs: [
      [2, 3, 4],
      [5, 4],
    ],
    compute: (x, w) => t.linear(x!, w!),
  },
  { name: "linear with bias", inputs: [[2, 3, 4], [5, 4], [5]], compute: (x, w, b) => t.linear(x!, w!, b!) },
  { name: "softmax", inputs: [[3, 7]], range: [-3, 3], compute: (x) => t.softmax(x!) },
  { name: "softmax of a transposed view", inputs: [[7, 3]], compute: (x) => t.softmax(x!.T) },
  {
    name: "embedding",
    inputs: [[5, 3]],
    compute: (table) => t.embedding(table!, t.tensor(Int32Array.of(0, 4, 4, 2, 0, 4), { shape: [2, 3] })),
  },
  { name: "rmsNorm", inputs: [[2, 3, 8], [8]], compute: (x, w) => t.rmsNorm(x!, w!, { eps: 1e-5 }) },
  { name: "rmsNorm of a view", inputs: [[8, 3], [8]], compute: (x, w) => t.rmsNorm(x!.T, w!) },
  {
    name: "rope",
    inputs: [[2, 5, 2, 8]],
    compute: (x) => {
      const { cos, sin } = t.ropeTables(5, 8, { dtype: accumulationDType(x!.dtype) });
      return t.rope(x!, cos, sin);
    },
  },
  {
    name: "rope, interleaved and partial",
    inputs: [[2, 5, 2, 8]],
    compute: (x) => {
      const { cos, sin } = t.ropeTables(5, 6, { dtype: accumulationDType(x!.dtype) });
      return t.rope(x!, cos, sin, { interleaved: true });
    },
  },
  {
    name: "swiglu",
    inputs: [
      [3, 5],
      [3, 5],
    ],
    range: [-3, 3],
    compute: (gate, up) => t.swiglu(gate!, up!),
  },
  { name: "defineOp", inputs: [[3, 4]], compute: (x) => cube([x!], undefined) },
];
const losses: OpCase[] = [
  { name: "crossEntropy", inputs: [[6, 5]], compute: (z) => t.crossEntropy(z!, targets(1, 6, 5)) },
  {
    name: "crossEntropy with all options",
    inputs: [[6, 5]],
    range: [-3, 3],
    compute: (z) => t.crossEntropy(z!, targets(1, 6, 5, true), lossOptions),
  },
  {
    name: "crossEntropy of a transposed view",
    inputs: [[5, 6]],
    compute: (z) => t.crossEntropy(z!.T, targets(1, 6, 5)),
  },
  {
    name: "linearCrossEntropy",
    inputs: [
      [6, 4],
      [5, 4],
    ],
    compute: (x, w) => t.linearCrossEntropy(x!, w!, targets(1, 6, 5)),
  },
  {
    name: "linearCrossEntropy with all options and an upstream gradient",
    inputs: [
      [6, 4],
      [5, 4],
    ],
    range: [-2, 2],
    compute: (x, w) => t.linearCrossEntropy(x!, w!, targets(1, 6, 5, true), lossOptions).mul(-2.5),
  },
  {
    name: "linearCrossEntropy, gradient of the weight only",
    inputs: [[5, 4]],
    compute: (w) => t.linearCrossEntropy(sample([3, 4], 5, { dtype: w!.dtype }), w!, targets(1, 3, 5)),
  },
];
const dot = (name: string, inputs: number[][], options: t.AttentionOptions = {}): OpCase => ({
  name: `attention, ${name}`,
  inputs,
  compute: (q, k, v) => t.attention(q!, k!, v!, options),
});
const two = (name: string, inputs: number[][], options: t.SimplicialAttentionOptions = {}): OpCase => ({
  name: `simplicialAttention, ${name}`,
  inputs,
  terms: 256,
  compute: (q, k1, k2, v1, v2) => t.simplicialAttention(q!, k1!, k2!, v1!, v2!, options),
});
const attentions: OpCase[] = [
  dot("causal", qkv(5, 5, 2, 2, 4)),
  dot("grouped queries", qkv(5, 5, 4, 2, 4)),
  dot("window", qkv(7, 7, 2, 1, 4), { window: 3 }),
  dot("softcap", qkv(5, 5, 2, 2, 4), { softcap: 2 }),
  dot("all options", qkv(3, 7, 4, 2, 3, 5), { window: 4, softcap: 1.5, scale: 0.7, qOffset: 3 }),
  dot("bidirectional", qkv(5, 3, 2, 1, 4), { causal: false }),
  dot("bidirectional window", qkv(6, 6, 2, 1, 4), { causal: false, window: 2 }),
  dot("longer than a tile", qkv(67, 67, 2, 1, 4), { window: 40 }),
  {
    name: "attention of transposed heads",
    inputs: [
      [2, 2, 5, 4],
      [2, 2, 5, 4],
      [2, 2, 5, 4],
    ],
    compute: (q, k, v) => t.attention(q!.transpose(1, 2), k!.transpose(1, 2), v!.transpose(1, 2)).transpose(1, 2),
  },
  two("windows", pairs(6, 2, 1, 4), { w1: 4, w2: 2 }),
  two("grouped queries", pairs(5, 4, 2, 3), { w1: 3, w2: 3 }),
  two("no windows", pairs(5, 2, 2, 3)),
  two("biases and another head size", pairs(5, 2, 1, 4, 3), { w1: 3, w2: 2, k2Bias: 0.25, v2Bias: 1, scale: 0.6 }),
  two("not causal", pairs(4, 2, 1, 4), { causal: false }),
  two("determinant", pairs(5, 2, 1, 6), { w1: 4, w2: 3, form: "determinant" }),
  two("determinant with a rest", pairs(5, 2, 1, 5), { form: "determinant" }),
  two(
    "chunk of a longer sequence",
    [
      [1, 3, 2, 4],
      [1, 6, 1, 4],
      [1, 5, 1, 4],
      [1, 6, 1, 4],
      [1, 5, 1, 4],
    ],
    {
      w1: 4,
      w2: 3,
      qOffset: 7,
      k1Offset: 4,
      k2Offset: 5,
    },
  ),
];

export const opCases: readonly OpCase[] = [
  ...elementwiseCases,
  ...productCases,
  ...reductionCases,
  ...elementLossCases,
  ...views,
  ...layers,
  ...losses,
  ...attentions,
  ...normCases,
  ...convolutionCases,
  ...indexingCases,
  ...attentionCases,
  ...linalgCases,
];
