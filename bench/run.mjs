/**
 * Measures the engine side by side with ceilings and peers of the same run. The packages must be built (`npm run bench` does it).
 *
 *   npm run bench                          every benchmark, some twenty minutes, most of them for PyTorch in cpu
 *   npm run bench -- matmul optimizers     these
 *   npm run bench -- cuda                  the promises of the CUDA engine, on a machine with a GPU
 *   npm run bench -- moe --device cuda     those that measure any device, on that of LLMEFF_DEVICE or this one
 *   npm run bench -- --with-peers          also other JavaScript libraries, which are installed into bench/node_modules (some minutes)
 *   npm run bench -- --smoke               tiny sizes in a few seconds: whether everything runs, no figures worth keeping
 */
import { parseArgs } from "node:util";
import * as attention from "./attention.mjs";
import * as contention from "./contention.mjs";
import * as cpu from "./cpu.mjs";
import * as cuda from "./cuda.mjs";
import * as decode from "./decode.mjs";
import * as eventLoop from "./event-loop.mjs";
import * as generation from "./generation.mjs";
import { describeMachine } from "./lib/machine.mjs";
import { installPeers } from "./lib/peers.mjs";
import { writeResults } from "./lib/report.mjs";
import * as longcontext from "./longcontext.mjs";
import * as matmul from "./matmul.mjs";
import * as matrixOptimizers from "./matrix-optimizers.mjs";
import * as moe from "./moe.mjs";
import * as optimizers from "./optimizers.mjs";
import * as recompute from "./recompute.mjs";
import * as sampling from "./sampling.mjs";
import * as serve from "./serve.mjs";
import * as smallOps from "./small-ops.mjs";
import * as trainStep from "./train-step.mjs";
import * as wholeStep from "./whole-step.mjs";

const benchmarks = {
  matmul,
  attention,
  moe,
  optimizers,
  "matrix-optimizers": matrixOptimizers,
  "train-step": trainStep,
  "whole-step": wholeStep,
  recompute,
  "event-loop": eventLoop,
  contention,
  "small-ops": smallOps,
  generation,
  sampling,
  longcontext,
  serve,
  cpu,
  cuda,
  decode,
};
/** Those that any machine can run. */
const everywhere = Object.keys(benchmarks).filter((name) => name !== "cuda" && name !== "decode");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    smoke: { type: "boolean", default: false },
    "with-peers": { type: "boolean", default: false },
    device: { type: "string" },
  },
});
const names = positionals.length > 0 ? positionals : everywhere;
const unknown = names.filter((name) => !Object.hasOwn(benchmarks, name));
if (unknown.length > 0) {
  console.error(`[bench] expected ${Object.keys(benchmarks).join(", ")}; received ${unknown.join(", ")}.`);
  process.exit(1);
}

if (values.device !== undefined) process.env.LLMEFF_DEVICE = values.device;
if (values["with-peers"]) installPeers();
const machine = describeMachine();
console.log(
  `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB; ${machine.platform}, Node ${machine.node}; commit ${machine.commit}, ${machine.date}`,
);
if (machine.load > 0.2)
  console.log(`Other programs are at work (load ${machine.load}): expect figures that are too low.`);
for (const name of names) {
  const { title, run } = benchmarks[name];
  console.log(`\n══ ${name}: ${title}`);
  const rows = await run({ smoke: values.smoke, peers: values["with-peers"] });
  writeResults(name, machine, rows, values);
}
