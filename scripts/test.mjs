/** Every test there is, one program after the other; at the end what failed, and as the last line the sum. Set-up is `bootstrap.mjs test`. */
import { join } from "node:path";
import { add, format, runCounted } from "./lib/counted.mjs";
import { root } from "./lib/workspace.mjs";

const programs = [
  "check-dependencies",
  "check-isa-symbols",
  "engine-tests",
  "unit-tests",
  "golden",
  "bench-smoke",
  "pack-test",
];

const results = new Map();
for (const name of programs) {
  console.log(`\n== ${name}`);
  results.set(name, await runCounted(process.execPath, [join(root, "scripts", `${name}.mjs`)]));
}

console.log("");
for (const { failures } of results.values()) for (const line of failures) console.log(line);
for (const [name, counts] of results) console.log(`${name}: ${format(counts)}`);
const total = [...results.values()].reduce(add);
console.log(format(total));
process.exitCode = total.failed > 0 ? 1 : 0;
