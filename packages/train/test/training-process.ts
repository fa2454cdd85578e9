/**
 * A training run to be killed: `node training-process.mjs DIRECTORY STEPS EVERY OPTIMIZER [PAUSE]`. Prints a line for every event, and at
 * the end the SHA-256 of all parameters and optimizer state. SIGINT ends it properly, with exit code 130. After PAUSE steps of this
 * process it only waits for a signal, so that a slow machine's late kill doesn't find it finished.
 */
import { createHash } from "node:crypto";
import { writeSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { prefetch } from "@llmeff/data";
import { train } from "../src/index.js";
import { bitsOf, type optimizerNames, tinyData, tinyLoss, tinyOptimizer, tinyParams } from "./tiny-model.js";

type Arguments = [string, string, string, (typeof optimizerNames)[number], string?];
const [directory, steps, every, name, pause = "Infinity"] = process.argv.slice(2) as Arguments;
const print = (line: string) => writeSync(1, `${line}\n`);
const controller = new AbortController();
process.on("SIGINT", () => controller.abort(new Error("interrupted")));

/** Waits for SIGINT, or to be killed. */
async function signalled(): Promise<void> {
  await setTimeout(600_000, undefined, { signal: controller.signal }).catch(() => undefined);
}

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
  let stepsHere = 0;
  for await (const event of run) {
    print(`${event.type} ${event.step}`);
    if (event.type === "step" && ++stepsHere === Number(pause)) await signalled();
  }
  const bits = { params: await bitsOf(params), optimizer: await bitsOf(optimizer.stateDict().tensors) };
  print(`final ${createHash("sha256").update(JSON.stringify(bits)).digest("hex")}`);
} catch (error) {
  print(`failed ${(error as Error).message}`);
  process.exitCode = controller.signal.aborted ? 130 : 1;
}
