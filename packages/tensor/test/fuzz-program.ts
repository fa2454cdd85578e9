/**
 * Throws random shapes, strides, dtypes, values and disposed tensors at every operation: `node program.mjs ITERATIONS SEED PROGRESS_FILE [FIRST]`.
 * Writes the number of the iteration at work to the file, so that a crash can be traced to it, and ends with one JSON line.
 */
import { openSync, writeSync } from "node:fs";
import { fuzz } from "./fuzz.js";

const [iterations, seed, progressFile, first = "0"] = process.argv.slice(2);
const progress = openSync(progressFile!, "w");

const onIteration = (iteration: number) => writeSync(progress, `${iteration}\n`, 0);
const result = await fuzz(Number(iterations), Number(seed), onIteration, Number(first));
console.log(JSON.stringify(result));
