import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { describeGolden } from "../../../../../test/golden.js";
import { runProgram } from "./program.js";
import { isNeutral, relevantOperations } from "./relevance.js";

interface Golden {
  latentList: {
    lines: string[];
    output: string | null;
    final: number[] | null;
    error: string | null;
    relevantState?: boolean[];
    relevantView?: boolean[];
  }[];
  latentListNeutral: { prefix: string[]; block: string[]; neutral: boolean }[];
}

describeGolden("longcontext.json", (path) => {
  const { latentList, latentListNeutral } = JSON.parse(readFileSync(path, "utf8")) as Golden;

  it.each(latentList.map((program, i) => [i, program] as const))("latentList %i", (_, program) => {
    const { lines, output, final, error, relevantState, relevantView } = program;
    expect(runProgram(lines)).toEqual({ output, final, error });
    if (relevantState !== undefined) expect(relevantOperations(lines, "state")).toEqual(relevantState);
    if (relevantView !== undefined) expect(relevantOperations(lines, "view")).toEqual(relevantView);
  });

  it.each(latentListNeutral.map((entry, i) => [i, entry] as const))("latentListNeutral %i", (_, entry) => {
    expect(isNeutral(entry.prefix, entry.block)).toBe(entry.neutral);
  });
});
