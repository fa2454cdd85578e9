import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { engine } from "@llmeff/native";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bundle, discard, runNode } from "./child.js";
import { expectClose, largest, unitRoundoff } from "./compare.js";
import type { IsaResult } from "./isa-program.js";

const isas = engine().info().availableIsas;
/** The plainest that there is, to which the others are held. */
const reference = isas.at(-1)!;
let program = "";

async function resultsOn(isa: string): Promise<IsaResult[]> {
  const path = join(dirname(program), `${isa}.json`);
  const { code, stderr } = await runNode(program, [path], { LLMEFF_CPU_ISA: isa, LLMEFF_DEVICE: "cpu" });
  expect(code, stderr).toBe(0);
  const revive = (_key: string, x: unknown) => (x === "NaN" || x === "Infinity" || x === "-Infinity" ? Number(x) : x);
  return JSON.parse(readFileSync(path, "utf8"), revive) as IsaResult[];
}

describe("kernels of every instruction set", () => {
  let plain: IsaResult[] = [];
  beforeAll(async () => {
    program = await bundle("isa-program.ts");
    plain = await resultsOn(reference);
  });

  afterAll(() => discard(program));

  it("compute finite numbers", () => {
    expect(plain.length).toBeGreaterThan(1000);
    expect(plain.filter(({ values }) => values.some((x) => !Number.isFinite(x))).map(({ name }) => name)).toEqual([]);
  });

  it.each(isas.slice(0, -1))(`agree on %s with ${reference}, for odd sizes and views`, async (isa) => {
    const fast = await resultsOn(isa);
    expect(fast.map(({ name }) => name)).toEqual(plain.map(({ name }) => name));
    for (const [i, { name, terms, values }] of plain.entries()) {
      const u = unitRoundoff[name.endsWith("float64") ? "float64" : "float32"];
      // Each number is a sum of `terms` in another order, of factors that are right to a few roundings.
      const tolerance = 16 * u * Math.sqrt(terms) * (1 + largest(values));
      expectClose(fast[i]!.values, values, { atol: tolerance }, `${name} on ${isa}`);
    }
  });
});
