/** Reductions over axes, and what is normalised along one. */
import type { Tensor } from "../../src/index.js";
import * as t from "../../src/index.js";
import type { OpCase } from "../op-cases.js";

/** Operations to be called by name. */
const byName = { ...t };

const everywhere = (name: string, reduce: (x: Tensor, options?: t.ReduceOptions) => Tensor): OpCase[] => [
  { name, inputs: [[3, 4, 5]], compute: (x) => reduce(x!) },
  { name: `${name} of the last axis`, inputs: [[3, 4, 5]], compute: (x) => reduce(x!, { axis: -1 }) },
  { name: `${name} of the first axis`, inputs: [[3, 4, 5]], compute: (x) => reduce(x!, { axis: 0, keepDims: true }) },
  { name: `${name} of two axes`, inputs: [[3, 4, 5]], compute: (x) => reduce(x!, { axis: [0, 2] }) },
  {
    name: `${name} of a transposed view`,
    inputs: [[3, 4, 5]],
    compute: (x) => reduce(x!.permute([2, 0, 1]), { axis: 1 }),
  },
];
const names = ["sum", "mean", "max", "min", "prod", "variance", "std", "logSumExp"] as const;

export const reductionCases: OpCase[] = [
  ...names.flatMap((name) => everywhere(name, byName[name])),
  ...everywhere("variance without correction", (x, options) => t.variance(x, { ...options, correction: 0 })),
  {
    name: "prod with zeros",
    inputs: [[3, 4]],
    compute: (x) =>
      t.prod(
        x!.mul(
          t.tensor(
            [
              [0, 1, 1, 1],
              [0, 1, 0, 1],
              [1, 1, 1, 1],
            ],
            { dtype: x!.dtype },
          ),
        ),
        { axis: 1 },
      ),
  },
  { name: "softmax of the first axis", inputs: [[7, 3]], range: [-3, 3], compute: (x) => t.softmax(x!, { axis: 0 }) },
  { name: "logSoftmax", inputs: [[3, 7]], range: [-3, 3], compute: (x) => t.logSoftmax(x!) },
  { name: "logSoftmax of a middle axis", inputs: [[2, 5, 3]], compute: (x) => t.logSoftmax(x!.T, { axis: -2 }) },
];
