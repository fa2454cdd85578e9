import { accumulationDType } from "../../src/dtype.js";
import type { Tensor } from "../../src/index.js";
import * as t from "../../src/index.js";
import type { OpCase } from "../op-cases.js";

/** Running statistics that are no parameters, fresh for every call: training changes them. */
const running = (like: Tensor, channels: number) => {
  const of = (value: number, step: number) =>
    t.tensor(
      Float64Array.from({ length: channels }, (_, i) => value + step * i),
      { dtype: accumulationDType(like.dtype) },
    );
  return [of(0.25, -0.125), of(0.5, 0.25)] as const;
};
const both = ([sum, y]: readonly [Tensor, Tensor]) => t.concat([sum, y.mul(2)], 0);
const triple = [[2, 3, 8], [2, 3, 8], [8]];

export const normCases: readonly OpCase[] = [
  { name: "rmsNorm with plusOne", inputs: [[2, 3, 8], [8]], compute: (x, w) => t.rmsNorm(x!, w!, { plusOne: true }) },
  { name: "addRmsNorm", inputs: triple, compute: (x, r, w) => both(t.addRmsNorm(x!, r!, w!)) },
  { name: "addRmsNorm, sum only", inputs: triple, compute: (x, r, w) => t.addRmsNorm(x!, r!, w!)[0] },
  { name: "addRmsNorm, norm only", inputs: triple, compute: (x, r, w) => t.addRmsNorm(x!, r!, w!)[1] },
  {
    name: "addRmsNorm of a tensor and itself transposed",
    inputs: [[17, 17], [17]],
    compute: (x, w) => both(t.addRmsNorm(x!, x!.T, w!, { plusOne: true })),
  },
  { name: "layerNorm", inputs: [[2, 3, 8], [8], [8]], compute: (x, w, b) => t.layerNorm(x!, w!, b!) },
  { name: "layerNorm without parameters", inputs: [[3, 19]], compute: (x) => t.layerNorm(x!) },
  { name: "layerNorm without bias", inputs: [[40, 17], [17]], compute: (x, w) => t.layerNorm(x!, w!) },
  {
    name: "layerNorm without weight, of a view",
    inputs: [[8, 5], [8]],
    compute: (x, b) => t.layerNorm(x!.T, undefined, b!, { eps: 0.1 }),
  },
  {
    name: "addLayerNorm",
    inputs: [...triple, [8]],
    compute: (x, r, w, b) => both(t.addLayerNorm(x!, r!, w!, b!)),
  },
  { name: "addLayerNorm, sum only", inputs: triple, compute: (x, r, w) => t.addLayerNorm(x!, r!, w!)[0] },
  { name: "addLayerNorm, norm only", inputs: triple, compute: (x, r, w) => t.addLayerNorm(x!, r!, w!)[1] },
  {
    name: "batchNorm in training",
    inputs: [[4, 3, 2, 5], [3], [3]],
    compute: (x, w, b) => t.batchNorm(x!, w!, b!, ...running(x!, 3), { training: true }),
  },
  {
    name: "batchNorm in evaluation",
    inputs: [[4, 3], [3], [3]],
    compute: (x, w, b) => t.batchNorm(x!, w!, b!, ...running(x!, 3)),
  },
  { name: "groupNorm", inputs: [[2, 6, 3, 2], [6], [6]], compute: (x, w, b) => t.groupNorm(x!, 3, w!, b!) },
];
