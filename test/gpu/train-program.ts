/** `node train-program.mjs STEPS`: trains the large run on the default device, a line `step N` each, at the end `final DIGEST`. */
import { writeSync } from "node:fs";
import { large, Run } from "./step.js";

const print = (line: string) => writeSync(1, `${line}\n`);
const run = new Run(large);
for (let step = 1; step <= Number(process.argv[2]); step++) {
  await run.step();
  print(`step ${step}`);
}
print(`final ${await run.bits()}`);
