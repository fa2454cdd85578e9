/** What computing activations again saves in memory and costs in time: losses and gradients of one model, for each choice of `recompute`. */
import { measure } from "./lib/child.mjs";
import { tiny } from "./lib/gpt.mjs";
import { fixed, percent, printTable } from "./lib/report.mjs";

export const title =
  "Activations computed again: memory and time of a step without the optimizer (medians of alternating rounds)";

const size = { layers: 12, d: 256, heads: 4, T: 512, B: 4, vocab: 512 };

export async function run({ smoke }) {
  const options = smoke ? { size: tiny, rounds: 2 } : { size, rounds: 11 };
  const device = process.env.LLMEFF_DEVICE ?? "cpu";
  const rows = await measure("measure/recompute.mjs", options, { device });
  const { layers, d, heads, T, B, vocab } = options.size;
  console.log(
    `\nlayers ${layers}, width ${d}, heads ${heads}, T ${T}, B ${B}, vocabulary ${vocab}, float32, ${device}`,
  );
  const [most] = rows;
  printTable(
    ["recompute", "activations MiB", "of all", "ms", "ms of processors", "of those without"],
    rows.map(({ recompute, activationMiB, stepMs, processorMs }) => [
      recompute,
      fixed(activationMiB),
      percent(activationMiB, most.activationMiB),
      fixed(stepMs),
      fixed(processorMs),
      percent(processorMs, most.processorMs),
    ]),
  );
  return rows;
}
