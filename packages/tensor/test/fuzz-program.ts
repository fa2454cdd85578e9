/**
 * Throws random shapes, strides, dtypes, values and disposed tensors at every operation: `node program.mjs ITERATIONS SEED PROGRESS_FILE`.
 * Writes the number of the iteration at work to the file, so that a crash can be traced to it, and ends with one JSON line.
 */
import { openSync, writeSync } from "node:fs";
import { fuzz } from "./fuzz.js";

const [iterations, seed, progressFile] = process.argv.slice(2);
const progress = openSync(progressFile!, "w");

const result = await fuzz(Number(iterations), Number(seed), (iteration) => writeSync(progress, `${iteration}\n`, 0));
console.log(JSON.stringify(result));
