/** Every vitest suite of the workspace except the golden ones, which `golden.mjs` runs and counts by file. */
import { add, format } from "./lib/counted.mjs";
import { runVitest } from "./lib/vitest.mjs";

const { files, crashed } = await runVitest(["--exclude", "**/*golden.test.ts"]);
const total = files.flatMap(({ suites }) => [...suites.values()]).reduce(add, { passed: 0, failed: crashed ? 1 : 0 });
for (const name of files.flatMap(({ skipped }) => skipped)) console.log(`not run on this system: ${name}`);
console.log(format(total));
process.exitCode = total.failed > 0 ? 1 : 0;
