/** Matrix products and linear layers. */
import * as t from "../../src/index.js";
import type { OpCase } from "../op-cases.js";

const counts = (...list: number[]) => t.tensor(Int32Array.from(list));
const layer = [[2, 3, 4], [5, 4], [5]];

export const productCases: OpCase[] = [
  ...(["gelu", "geluErf", "silu"] as const).map(
    (activation): OpCase => ({
      name: `linear with ${activation}`,
      inputs: layer,
      compute: (x, w, b) => t.linear(x!, w!, b!, { activation }),
    }),
  ),
  // Away from 0, where relu has no derivative.
  {
    name: "linear with relu",
    inputs: layer,
    range: [0.25, 1],
    compute: (x, w, b) => t.linear(x!, w!, b!, { activation: "relu" }),
  },
  {
    name: "linearMany of many rows, one result unused",
    inputs: [
      [2, 130, 2],
      [3, 2],
      [1, 2],
      [2, 2],
    ],
    terms: 260,
    compute(x, ...weights) {
      const [a, , c] = t.linearMany(x!, weights);
      return t.concat([a!, c!.square()], -1);
    },
  },
  {
    name: "linearWide",
    inputs: [
      [6, 4],
      [3, 4],
    ],
    compute: (x, w) => t.linearWide(x!, w!),
  },
  {
    name: "groupedMatmul with an empty group and rows of none",
    inputs: [
      [9, 4],
      [3, 4, 5],
    ],
    compute: (x, w) => t.groupedMatmul(x!, w!, counts(5, 0, 3)),
  },
  {
    name: "groupedMatmulMany of transposed weights, one result unused",
    inputs: [
      [40, 3],
      [2, 5, 3],
      [2, 2, 3],
      [2, 4, 3],
    ],
    compute(x, ...weights) {
      const turned = weights.map((w) => w.transpose(1, 2));
      const [a, , c] = t.groupedMatmulMany(x!, turned, counts(10, 30));
      return t.concat([a!, c!.square()], -1);
    },
  },
  {
    name: "swiglu of one product's halves",
    inputs: [
      [3, 4],
      [10, 4],
    ],
    compute(x, w) {
      const [gate, up] = t.split(t.linear(x!, w!), 2, -1);
      return t.swiglu(gate!, up!);
    },
  },
  {
    name: "linear with an activation and no bias, of which few rows",
    inputs: [
      [1, 7],
      [9, 7],
    ],
    compute: (x, w) => t.linear(x!, w!, undefined, { activation: "silu" }),
  },
];
