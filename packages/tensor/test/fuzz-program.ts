/**
 * Throws random shapes, strides, dtypes, values and disposed tensors at every operation:
 * `node program.mjs ITERATIONS SEED FIRST PROGRESS_FILE [WORKERS]`, with further seeds in worker threads at the same time. Writes the number
 * of the iteration at work to the file, so that a crash can be traced to it, and ends with one JSON line for each thread.
 */
import { openSync, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { fuzz } from "./fuzz.js";

const [iterations, seed, first, progressFile, workers = "0"] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
];
const progress = openSync(progressFile, "w");

for (let worker = 1; worker <= Number(workers); worker++)
  new Worker(fileURLToPath(import.meta.url), {
    argv: [iterations, String(Number(seed) + worker), first, `${progressFile}-${worker}`],
  });
const onIteration = (iteration: number) => writeSync(progress, `${iteration}\n`, 0);
console.log(JSON.stringify(await fuzz(Number(iterations), Number(seed), Number(first), onIteration)));
