/**
 * A training run to be killed: `node training-process.mjs DIRECTORY STEPS EVERY OPTIMIZER`. Prints a line for every event, and at the end
 * the SHA-256 of all parameters and optimizer state. SIGINT ends it properly, with exit code 130.
 */
import { createHash } from "node:crypto";
import { writeSync } from "node:fs";
import { prefetch } from "@llmeff/data";
import { train } from "../src/index.js";
import { bitsOf, type optimizerNames, tinyData, tinyLoss, tinyOptimizer, tinyParams } from "./tiny-model.js";

const [directory, steps, every, name] = process.argv.slice(2) as [
  string,
  string,
  string,
  (typeof optimizerNames)[number],
];
const print = (line: string) => writeSync(1, `${line}\n`);
const controller = new AbortController();
process.on("SIGINT", () => controller.abort(new Error("interrupted")));

const params = tinyParams();
const optimizer = tinyOptimizer(name, params);
const run = train({
  params,
  optimizer,
  objective: tinyLoss,
  data: prefetch(tinyData()),
  steps: Number(steps),
  gradientAccumulation: 2,
  evaluate: ({ step }) => ({ step }),
  evaluateEvery: 7,
  checkpoint: { directory, every: Number(every), keepLast: 2 },
  resume: true,
  signal: controller.signal,
});
try {
  print("started 0");
  for await (const event of run) print(`${event.type} ${event.step}`);
  const bits = { params: await bitsOf(params), optimizer: await bitsOf(optimizer.stateDict().tensors) };
  print(`final ${createHash("sha256").update(JSON.stringify(bits)).digest("hex")}`);
} catch (error) {
  print(`failed ${(error as Error).message}`);
  process.exitCode = controller.signal.aborted ? 130 : 1;
}
