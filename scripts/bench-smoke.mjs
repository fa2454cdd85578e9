/** Runs every benchmark at a tiny size: they check their results before they time. Counts as one test. */
import { join } from "node:path";
import { run } from "./lib/process.mjs";
import { root } from "./lib/workspace.mjs";

const failed = run(process.execPath, [join(root, "bench", "run.mjs"), "--smoke"]) === 0 ? 0 : 1;
console.log(`${1 - failed} passed, ${failed} failed`);
process.exitCode = failed;
