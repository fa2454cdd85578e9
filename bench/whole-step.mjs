/**
 * What SONew costs where it counts: the whole training step with it (tridiagonal, Adam graft) beside the same step with AdamW, on the CPU or, with
 * `LLMEFF_DEVICE=cuda`, on a GPU.
 */
import { measure } from "./lib/child.mjs";
import { full, tiny } from "./lib/gpt.mjs";
import { cores } from "./lib/machine.mjs";
import { promiseLines } from "./lib/promise-lines.mjs";

export const title = "Whole training step, SONew beside AdamW (medians of alternating rounds)";

const { rows, report, begin } = promiseLines();
const large = { layers: 12, d: 768, heads: 12, ffn: 2048, T: 1024, B: 32, vocab: 50304, lr: 3e-4 };

export async function run({ smoke }) {
  begin();
  const device = process.env.LLMEFF_DEVICE ?? "cpu";
  const onGpu = device.startsWith("cuda");
  const size = smoke ? tiny : onGpu ? large : full;
  const counts = smoke
    ? { rounds: 2, stepsPerRound: 2 }
    : onGpu
      ? { rounds: 12, stepsPerRound: 5 }
      : { rounds: 60, stepsPerRound: 1 };
  const dtype = onGpu ? "bfloat16" : "float32";
  const [{ sonewMs, adamwMs, ...line }] = await measure(
    "measure/whole-step.mjs",
    { size, dtype, ...counts },
    { device },
  );
  const { layers, d, T, B, vocab } = size;
  report({
    name: "training step with SONew",
    shape: `${layers} layers, d ${d}, vocabulary ${vocab}, B ${B}, T ${T}, ${dtype}`,
    device,
    threads: onGpu ? undefined : cores,
    value: sonewMs,
    unit: "ms",
    peer: "the step with AdamW",
    peerValue: adamwMs,
    bar: 1.03,
    atMost: true,
    ...line,
    // At tiny sizes a step is the JavaScript around it.
    ratio: smoke ? null : line.pairedRatio,
  });
  return rows;
}
