/** The grouped products of a mixture of experts in bfloat16, each beside the plain product of as many operations, in turns, by the GPU's own clock. */
import { engine } from "@llmeff/native";
import { groupedMatmul, matmul, randomNormal, scope, tensor, transpose } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { deviceMs } from "../lib/gpu.mjs";
import { median } from "../lib/timing.mjs";

const { tokens, d, expertDim: F, numExperts: E, topK, rounds } = childOptions();
const A = tokens * topK;
let stream = 0;
const normal = (shape) => scope(() => randomNormal({ seed: 2, stream: stream++ }, shape).astype("bfloat16"));
const [x, slope, weights, dense, dw] = [
  normal([A, d]),
  normal([A, F]),
  normal([E, F, d]),
  normal([F, d]),
  normal([E, F, d]),
];
const gradient = (list) => {
  engine().op.groupedMatmulGrad(slope.handle, x.handle, list.handle, dw.handle);
  return dw;
};
const products = {
  "x · Wᵀ": [(list) => groupedMatmul(x, transpose(weights, 1, 2), list), () => matmul(x, transpose(dense))],
  "dy · W": [(list) => groupedMatmul(slope, weights, list), () => matmul(slope, dense)],
  "dyᵀ · x": [gradient, () => matmul(transpose(slope), x)],
};
/** Rows of the experts: alike, or half of them one's and a quarter another's. */
const counts = {
  uniform: Array.from({ length: E }, () => A / E),
  skewed: Array.from({ length: E }, (_, e) => (e === 0 ? A / 2 : e === 1 ? A / 4 : A / 4 / (E - 2)) | 0),
};
for (const [name, [grouped, plain]] of Object.entries(products))
  for (const [routing, rows] of Object.entries(counts)) {
    const list = tensor(Int32Array.from(rows));
    const work = [() => grouped(list), plain];
    const sum = scope(() => grouped(list).astype("float32").sum().itemSync());
    expect(Number.isFinite(sum), `${name} is not finite`);
    const ms = [[], []];
    for (let i = -3; i < rounds; i++)
      for (const turn of [i & 1, ~i & 1]) {
        const one = await deviceMs(work[turn]);
        if (i >= 0) ms[turn].push(one);
      }
    const rate = (used, times) => (2 * used * d * F) / median(times) / 1e9;
    const used = rows.reduce((a, b) => a + b, 0);
    emit({ name, routing, tflops: rate(used, ms[0]), denseTflops: rate(A, ms[1]) });
  }
