/** Differentiable functions of each element, and of pairs. */
import type { Tensor } from "../../src/index.js";
import * as t from "../../src/index.js";
import type { OpCase } from "../op-cases.js";

/** Operations to be called by name. */
const byName = { ...t };

const positive: [number, number] = [0.25, 2];

const anywhere = [
  "neg",
  "exp",
  "expm1",
  "square",
  "sin",
  "cos",
  "atan",
  "sinh",
  "cosh",
  "tanh",
  "erf",
  "sigmoid",
  "softplus",
  "silu",
  "gelu",
] as const;
const above = ["abs", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "relu"] as const;
const unary = (names: readonly (typeof anywhere | typeof above)[number][], range: [number, number], note = "") =>
  names.map((name): OpCase => ({ name: name + note, inputs: [[3, 7]], range, compute: (x) => byName[name](x!) }));

const pair = (name: string, compute: (a: Tensor, b: Tensor) => Tensor): OpCase[] => [
  {
    name,
    inputs: [
      [4, 5],
      [4, 5],
    ],
    range: positive,
    compute: (a, b) => compute(a!, b!),
  },
  { name: `${name}, broadcast rows`, inputs: [[4, 5], [5]], range: positive, compute: (a, b) => compute(a!, b!) },
  {
    name: `${name}, broadcast both`,
    inputs: [
      [4, 1, 5],
      [3, 1],
    ],
    range: positive,
    seed: 43,
    compute: (a, b) => compute(a!, b!),
  },
];
const arithmetic = (["add", "sub", "mul", "div", "pow", "maximum", "minimum"] as const).flatMap((name): OpCase[] => [
  ...pair(name, byName[name]),
  { name: `${name} with a number`, inputs: [[4, 5]], range: positive, compute: (a) => byName[name](a!, 1.75) },
  { name: `${name}, number first`, inputs: [[4, 5]], range: positive, compute: (a) => byName[name](1.75, a!) },
]);

export const elementwiseCases: OpCase[] = [
  ...unary(anywhere, [-3, 3]),
  ...unary(above, positive),
  ...unary(["abs", "relu"], [-2, -0.25], " below zero"),
  ...(["tan", "asin", "acos"] as const).map(
    (name): OpCase => ({ name, inputs: [[3, 7]], range: [-0.75, 0.75], compute: (x) => byName[name](x!) }),
  ),
  {
    name: "gelu, exact",
    inputs: [[3, 7]],
    range: [-3, 3],
    compute: (x) => t.gelu(x!, { approximate: "none" }),
  },
  { name: "silu of a transposed view", inputs: [[7, 3]], range: [-3, 3], compute: (x) => t.silu(x!.T) },
  ...arithmetic,
  ...pair("atan2", t.atan2),
  ...pair("logAddExp", t.logAddExp),
  // b changes, but not the number of times that it goes into a.
  ...pair("remainder", (a, b) => t.remainder(a, b.mul(0.125).add(3))),
  { name: "clip", inputs: [[3, 7]], compute: (x) => t.clip(x!, -0.5, 0.25) },
  { name: "logSigmoid", inputs: [[3, 7]], range: [-3, 3], compute: (x) => t.logSigmoid(x!) },
  { name: "leakyRelu", inputs: [[3, 7]], compute: (x) => t.leakyRelu(x!, 0.2) },
  { name: "elu", inputs: [[3, 7]], range: [-3, 3], compute: (x) => t.elu(x!, 1.5) },
  { name: "dropout", inputs: [[5, 70]], compute: (x) => t.dropout(x!, 0.3, { seed: 5, stream: 2 }) },
  { name: "dropout of a transposed view", inputs: [[70, 5]], compute: (x) => t.dropout(x!.T, 0.3, { seed: 5 }) },
  { name: "dropout of nothing", inputs: [[3]], compute: (x) => t.dropout(x!, 0, { seed: 5 }) },
];
