/**
 * Holds the engine against golden vectors: runs the suites in `*golden.test.ts`, whose outermost `describe` is the name of a JSON file,
 * with the files of the folder given (default: the project's own), and prints the counts of each file and the sum.
 */
import { join, relative, resolve } from "node:path";
import { add, format } from "./lib/counted.mjs";
import { runVitest } from "./lib/vitest.mjs";
import { root } from "./lib/workspace.mjs";

const folder = resolve(process.argv[2] ?? join(root, "golden"));
const { files, crashed } = await runVitest(["golden.test.ts"], { LLMEFF_GOLDEN_DIR: folder });

const byName = new Map();
for (const { path, suites } of files) {
  for (const [suite, counts] of suites) {
    const name = suite === "(file)" ? relative(root, path) : suite;
    byName.set(name, add(byName.get(name) ?? { passed: 0, failed: 0 }, counts));
  }
}
for (const name of [...byName.keys()].sort()) console.log(`${name}: ${format(byName.get(name))}`);
const total = [...byName.values()].reduce(add, { passed: 0, failed: crashed ? 1 : 0 });
console.log(format(total));
process.exitCode = total.failed > 0 ? 1 : 0;
