/** Losses of pairs of arrays, element by element or row by row. */
import * as t from "../../src/index.js";
import { sample } from "../numbers.js";
import type { OpCase } from "../op-cases.js";

const reductions = ["mean", "sum", "none"] as const;
const pair = [
  [3, 7],
  [3, 7],
];

export const elementLossCases: OpCase[] = reductions.flatMap((reduction): OpCase[] => [
  { name: `mseLoss, ${reduction}`, inputs: pair, compute: (a, b) => t.mseLoss(a!, b!, { reduction }) },
  { name: `l1Loss, ${reduction}`, inputs: pair, compute: (a, b) => t.l1Loss(a!, b!, { reduction }) },
  { name: `huberLoss, ${reduction}`, inputs: pair, compute: (a, b) => t.huberLoss(a!, b!, { reduction, delta: 0.5 }) },
  {
    name: `sigmoidCrossEntropy, ${reduction}`,
    inputs: [[3, 7]],
    range: [-3, 3],
    compute: (z) => t.sigmoidCrossEntropy(z!, sample([3, 7], 11, { dtype: z!.dtype, low: 0 }), { reduction }),
  },
  {
    name: `sigmoidCrossEntropy with weights, ${reduction}`,
    inputs: [[3, 7]],
    range: [-3, 3],
    compute: (z) =>
      t.sigmoidCrossEntropy(z!, sample([3, 7], 11, { dtype: z!.dtype, low: 0 }), {
        reduction,
        weights: sample([3, 1], 12, { dtype: z!.dtype, low: 0 }),
        posWeight: sample([7], 13, { dtype: z!.dtype, low: 1, high: 3 }),
      }),
  },
  {
    name: `klDivergence, ${reduction}`,
    inputs: pair,
    compute: (p, q) => t.klDivergence(t.logSoftmax(p!), t.logSoftmax(q!), { reduction }),
  },
]);
