/**
 * A mixture of experts (SwiGLU, top 2 of 8) beside the dense layer with as many active weights, forward and backward, on the device of
 * `LLMEFF_DEVICE`: dropless, and with a capacity of 1.25. The rates count what the kept assignments cost, without the router.
 */
import { measure } from "./lib/child.mjs";
import { threadCounts } from "./lib/machine.mjs";
import { promiseLines } from "./lib/promise-lines.mjs";

export const title = "Mixture of experts, forward and backward, beside the dense layer (medians of alternating rounds)";

const { rows, report, begin } = promiseLines();

const experts = { numExperts: 8, topK: 2 };
const cases = [
  { tokens: 2048, d: 256, expertDim: 352 },
  { tokens: 8192, d: 256, expertDim: 352 },
  { tokens: 4096, d: 512, expertDim: 704 },
];
const smokeCases = [{ tokens: 32, d: 16, expertDim: 24 }];

export async function run({ smoke }) {
  begin();
  const device = process.env.LLMEFF_DEVICE ?? "cpu";
  for (const threads of device === "cpu" ? threadCounts : [undefined])
    for (const size of smoke ? smokeCases : cases) {
      const found = await measure(
        "measure/moe.mjs",
        { ...experts, ...size, rounds: smoke ? 1 : 11, capacityFactor: 1.25 },
        { threads, device },
      );
      for (const { gflops, denseGflops, ratio, ...line } of found)
        report({
          shape: `${size.tokens} tokens, d ${size.d}, top ${experts.topK} of ${experts.numExperts} × ${size.expertDim}`,
          device,
          threads,
          value: gflops,
          unit: "GFLOP/s",
          peer: `the dense layer of ${experts.topK * size.expertDim}`,
          peerValue: denseGflops,
          bar: 0.7,
          ...line,
          // At tiny sizes a step is the JavaScript around it.
          ratio: smoke ? null : ratio,
        });
    }
  return rows;
}
