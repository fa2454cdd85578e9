/** Matrix products and linear layers. */
import * as t from "../../src/index.js";
import type { OpCase } from "../op-cases.js";

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
    name: "linear with an activation and no bias, of which few rows",
    inputs: [
      [1, 7],
      [9, 7],
    ],
    compute: (x, w) => t.linear(x!, w!, undefined, { activation: "silu" }),
  },
];
