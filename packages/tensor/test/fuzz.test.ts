import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { bundle, discard, runNode } from "./child.js";
import type { FuzzResult } from "./fuzz.js";

/** `LLMEFF_FUZZ=ITERATIONS:SEED:FIRST` runs more, or others; `1:SEED:FIRST` repeats one. */
const [iterations, seed = "1", first = "0"] = (process.env.LLMEFF_FUZZ ?? "4000").split(":") as [string];
let program = "";
beforeAll(async () => {
  program = await bundle("fuzz-program.ts");
});
afterAll(() => discard(program));

async function results(iterations: string, workers: number): Promise<FuzzResult[]> {
  const progress = join(dirname(program), "iteration");
  const { code, signal, stdout, stderr } = await runNode(program, [iterations, seed, first, progress, `${workers}`]);
  expect({ code, signal }, `in iteration ${readFileSync(progress, "utf8")}${stderr.slice(-5000)}`).toEqual({
    code: 0,
    signal: null,
  });
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

it(`no operation crashes, leaks, or depends on the layout in ${iterations} random calls`, async () => {
  const [result] = await results(iterations, 0);
  const { computed, refused, failures } = result!;
  const total = Object.values(computed).reduce((a, b) => a + b, 0);
  const never = Object.keys(computed).filter((name) => computed[name] === 0);
  console.log(`fuzz: ${iterations} iterations of seed ${seed}: ${total} computed, ${refused} refused, 0 crashes`);
  expect(failures).toEqual([]);
  // Every function and both kinds of ends must be met often enough, else the fuzz has lost its grip.
  if (Number(iterations) >= 20_000) expect(never, "functions whose arguments were never right").toEqual([]);
  if (Number(iterations) >= 1000) expect(Math.min(total, refused)).toBeGreaterThan(Number(iterations) / 20);
}, 3_600_000);

it("threads that share the engine don't disturb each other", async () => {
  const part = String(Math.ceil(Number(iterations) / 4));
  const threads = await results(part, 2);
  expect(threads.map(({ failures }) => failures)).toEqual([[], [], []]);
}, 3_600_000);
