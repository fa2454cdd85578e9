import type { Tensor } from "../../src/index.js";
import * as t from "../../src/index.js";
import type { OpCase } from "../op-cases.js";

const conv = (name: string, inputs: number[][], options?: t.Conv2dOptions): OpCase => ({
  name: `conv2d, ${name}`,
  inputs,
  terms: 512,
  compute: (x, w, b) => t.conv2d(x!, w!, b, options),
});
/** Distinct numbers far enough apart that no step of the central differences changes which is the largest. */
const apart = (x: Tensor): Tensor => {
  const order = Float64Array.from({ length: x.size }, (_, i) => ((i * 7919) % x.size) / 8); // 7919 is prime
  return x.mul(0.03).add(t.tensor(order, { shape: x.shape, dtype: x.dtype }));
};

export const convolutionCases: readonly OpCase[] = [
  conv("3×3", [[2, 3, 5, 6], [4, 3, 3, 3], [4]]),
  conv("same padding, larger than a tile", [[1, 2, 15, 18], [15, 2, 3, 3], [15]], { padding: "same" }),
  conv("stride, padding and dilation", [[2, 2, 9, 8], [3, 2, 3, 2], [3]], {
    stride: [2, 3],
    padding: [2, 1],
    dilation: [1, 2],
  }),
  conv(
    "windows wider than the image",
    [
      [1, 1, 2, 2],
      [2, 1, 4, 5],
    ],
    { padding: [2, 3], stride: 3 },
  ),
  conv("1×1", [[2, 5, 4, 5], [3, 5, 1, 1], [3]]),
  conv(
    "1×1 with stride",
    [
      [2, 5, 4, 5],
      [3, 5, 1, 1],
    ],
    { stride: 2 },
  ),
  conv("groups", [[2, 4, 5, 5], [6, 2, 3, 3], [6]], { groups: 2, padding: 1 }),
  conv("depthwise", [[2, 3, 6, 6], [3, 1, 3, 3], [3]], { groups: 3, padding: 1 }),
  conv("deeper than a block", [
    [1, 58, 4, 4],
    [2, 58, 3, 3],
  ]),
  {
    name: "conv2d of transposed views",
    inputs: [
      [2, 5, 4, 3],
      [3, 3, 3, 4],
    ],
    compute: (x, w) => t.conv2d(x!.permute([0, 3, 1, 2]), w!.transpose(0, 3), undefined, { padding: 1 }),
  },
  {
    name: "conv1d",
    inputs: [[2, 3, 9], [4, 3, 3], [4]],
    compute: (x, w, b) => t.conv1d(x!, w!, b!, { padding: "same", dilation: 2 }),
  },
  {
    name: "maxPool2d",
    inputs: [[2, 2, 6, 5]],
    compute: (x) => t.maxPool2d(apart(x!), 2),
  },
  {
    name: "maxPool2d with overlaps and padding",
    inputs: [[2, 2, 7, 5]],
    compute: (x) => t.maxPool2d(apart(x!), [3, 2], { stride: [2, 1], padding: 1 }),
  },
  { name: "maxPool1d", inputs: [[2, 3, 9]], compute: (x) => t.maxPool1d(apart(x!), 3, { stride: 2, padding: 1 }) },
  { name: "avgPool2d", inputs: [[2, 2, 6, 5]], compute: (x) => t.avgPool2d(x!, [2, 3]) },
  {
    name: "avgPool2d with overlaps and padding",
    inputs: [[2, 2, 7, 5]],
    compute: (x) => t.avgPool2d(x!, [3, 2], { stride: [2, 1], padding: 1 }),
  },
  { name: "avgPool1d of a view", inputs: [[2, 9, 3]], compute: (x) => t.avgPool1d(x!.transpose(1, 2), 2) },
];
