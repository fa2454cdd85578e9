import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { bundle, discard, runNode } from "./child.js";
import type { FuzzResult } from "./fuzz.js";

/** `LLMEFF_FUZZ=ITERATIONS:SEED` runs more, or others. */
const [iterations, seed] = (process.env.LLMEFF_FUZZ ?? "4000:1").split(":") as [string, string];
let program = "";
beforeAll(async () => {
  program = await bundle("fuzz-program.ts");
});
afterAll(() => discard(program));

it(`no operation crashes, leaks, or depends on the layout in ${iterations} random calls`, async () => {
  const progress = join(dirname(program), "iteration");
  const { code, signal, stdout, stderr } = await runNode(program, [iterations, seed, progress]);
  expect({ code, signal }, `in iteration ${readFileSync(progress, "utf8")}${stderr.slice(-5000)}`).toEqual({
    code: 0,
    signal: null,
  });
  const { computed, refused, failures }: FuzzResult = JSON.parse(stdout);
  const total = Object.values(computed).reduce((a, b) => a + b, 0);
  const never = Object.keys(computed).filter((name) => computed[name] === 0);
  console.log(`fuzz: ${iterations} iterations of seed ${seed}: ${total} computed, ${refused} refused, 0 crashes`);
  expect(failures).toEqual([]);
  // Every function and both kinds of ends must be met often enough, else the fuzz has lost its grip.
  if (Number(iterations) >= 20_000) expect(never, "functions whose arguments were never right").toEqual([]);
  expect(Math.min(total, refused)).toBeGreaterThan(Number(iterations) / 20);
}, 3_600_000);
