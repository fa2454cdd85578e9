/**
 * A mixture of experts (SwiGLU, top 2 of 8) beside the dense layer with as many active weights, forward and backward, on the device of
 * `LLMEFF_DEVICE`: dropless, and with a capacity of 1.25. The rates count what the kept assignments cost, without the router. On a GPU in bfloat16
 * inside captured steps, with tokens that spread evenly and such that crowd at few experts, and the grouped products by themselves.
 */
import { measure } from "./lib/child.mjs";
import { threadCounts } from "./lib/machine.mjs";
import { promiseLines } from "./lib/promise-lines.mjs";

export const title = "Mixture of experts, forward and backward, beside the dense layer (medians of alternating rounds)";

const { rows, report, begin } = promiseLines();

const experts = { numExperts: 8, topK: 2 };
const cases = {
  cpu: [
    { tokens: 2048, d: 256, expertDim: 352 },
    { tokens: 8192, d: 256, expertDim: 352 },
    { tokens: 4096, d: 512, expertDim: 704 },
  ],
  cuda: [
    { tokens: 16384, d: 2048, expertDim: 4096 },
    { tokens: 32768, d: 1024, expertDim: 2048 },
  ],
  smoke: [{ tokens: 32, d: 16, expertDim: 24 }],
};
const bar = 0.7;

async function layers(size, { device, threads, smoke }) {
  const onGpu = device !== "cpu";
  const found = await measure(
    "measure/moe.mjs",
    {
      ...experts,
      ...size,
      rounds: smoke ? 1 : 11,
      capacityFactor: 1.25,
      dtype: onGpu ? "bfloat16" : "float32",
      routings: onGpu ? ["uniform", "skewed"] : ["uniform"],
    },
    { threads, device },
  );
  const per = onGpu ? 1e3 : 1;
  for (const { gflops, denseGflops, ratio, ...line } of found)
    report({
      shape: `${size.tokens} tokens, d ${size.d}, top ${experts.topK} of ${experts.numExperts} × ${size.expertDim}`,
      device,
      threads,
      value: gflops / per,
      unit: onGpu ? "TFLOP/s" : "GFLOP/s",
      peer: `the dense layer of ${experts.topK * size.expertDim}`,
      peerValue: denseGflops / per,
      bar,
      ...line,
      // At tiny sizes a step is the JavaScript around it.
      ratio: smoke ? null : ratio,
    });
}

async function products(size, { device, smoke }) {
  const found = await measure("measure/grouped.mjs", { ...experts, ...size, rounds: smoke ? 1 : 11 }, { device });
  for (const { name, routing, tflops, denseTflops } of found)
    report({
      name: `grouped product ${name}, ${routing} routing`,
      shape: `${size.tokens * experts.topK} rows, ${size.d} × ${size.expertDim}, ${experts.numExperts} groups`,
      device,
      value: tflops,
      unit: "TFLOP/s",
      peer: "the plain product",
      peerValue: denseTflops,
      ratio: smoke ? null : tflops / denseTflops,
    });
}

export async function run({ smoke }) {
  begin();
  const device = process.env.LLMEFF_DEVICE ?? "cpu";
  const onGpu = device !== "cpu";
  for (const size of smoke ? cases.smoke : onGpu ? cases.cuda : cases.cpu) {
    for (const threads of onGpu ? [undefined] : threadCounts) await layers(size, { device, threads, smoke });
    if (onGpu) await products(size, { device, smoke });
  }
  return rows;
}
