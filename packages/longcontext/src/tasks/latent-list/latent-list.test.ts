import { describe, expect, it } from "vitest";
import { BudgetTooSmallError } from "../../errors.js";
import { budgetTolerance } from "../../tokens/budget.js";
import { latentList } from "./latent-list.js";
import { runProgram, VIEWS } from "./program.js";
import { isNeutral, relevantOperations } from "./relevance.js";

/** The tested program, read back from the prompt. */
function programOf(content: string): string[] {
  const lines = content.split("\n");
  const start = lines.findLastIndex((line) => line.startsWith(">>> a = ["));
  return lines.slice(start, lines.length - 1).map((line) => line.slice(4));
}

describe("latentList", () => {
  it.each([1, 5, 20])("asks for what Python would show, with %i operations", (complexity) => {
    for (let index = 0; index < 30; index++) {
      const sample = latentList({ seed: 1, index, maxTokens: 8192 }, { complexity });
      const program = programOf(sample.messages[0]!.content);
      expect(runProgram(program).output).toBe(sample.target);
      expect(runProgram(sample.meta.core).output).toBe(sample.target);
      expect(relevantOperations(sample.meta.core, "state")).toEqual(new Array(complexity).fill(true));
      expect(sample.messages[0]!.content.endsWith("\nOutput:")).toBe(true);
    }
  });

  it("has only filler that changes nothing", () => {
    const sample = latentList({ seed: 2, index: 0, maxTokens: 4096 }, { complexity: 5 });
    const program = programOf(sample.messages[0]!.content).slice(0, -1);
    const core = sample.meta.core.slice(1, -1);
    const state = (lines: string[]) => JSON.stringify(runProgram(lines).final);
    // Walk along the program: at each relevant operation the list must be what the core alone had reached.
    let from = 1;
    for (const [j, operation] of core.entries()) {
      const reached = state(sample.meta.core.slice(0, j + 1));
      const at = program.findIndex(
        (line, i) => i >= from && line === operation && state(program.slice(0, i)) === reached,
      );
      expect(at).toBeGreaterThan(0);
      from = at + 1;
    }
    expect(isNeutral(program.slice(0, from), program.slice(from))).toBe(true);
  });

  it("keeps core, question and target at every length, and fills each budget", () => {
    const lengths = [2048, 8192, 65_536];
    const samples = lengths.map((maxTokens) => latentList({ seed: 3, index: 4, maxTokens }, { complexity: 5 }));
    for (const { target, meta, budget } of samples) {
      expect(target).toBe(samples[0]!.target);
      expect(meta.core).toEqual(samples[0]!.meta.core);
      const room = budget.maxTokens - budget.reserve;
      expect(budget.promptTokens).toBeLessThanOrEqual(room);
      expect(room - budget.promptTokens).toBeLessThanOrEqual(budgetTolerance(room, meta.maxUnitTokens));
    }
  });

  it("draws all views and complexities, and strict relevance on request", () => {
    const samples = Array.from({ length: 60 }, (_, index) => latentList({ seed: 4, index, maxTokens: 2048 }));
    expect(new Set(samples.map(({ meta }) => meta.view))).toEqual(new Set(VIEWS));
    expect(new Set(samples.map(({ complexity }) => complexity))).toEqual(new Set([1, 5, 20]));
    for (let index = 0; index < 10; index++) {
      const { meta } = latentList({ seed: 5, index, maxTokens: 2048 }, { complexity: 5, relevance: "view" });
      expect(relevantOperations(meta.core, "view").every(Boolean)).toBe(true);
    }
  });

  it("refuses a budget below its fixed part, naming the least", () => {
    const make = (maxTokens: number) => latentList({ seed: 1, index: 0, maxTokens }, { complexity: 20 });
    expect(() => make(300)).toThrow(BudgetTooSmallError);
    try {
      make(300);
    } catch (error) {
      const { needed } = error as BudgetTooSmallError;
      expect(make(needed).budget.maxTokens).toBe(needed);
      expect(() => make(needed - 1)).toThrow(BudgetTooSmallError);
    }
  });
});
