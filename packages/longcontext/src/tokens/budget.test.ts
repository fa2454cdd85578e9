import { join } from "node:path";
import { loadHuggingFaceTokenizer } from "@llmeff/data";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { goldenPath } from "../../../../test/golden.js";
import { checkSample } from "../check/check-sample.js";
import { EVERY_TASK } from "../check/every-task.js";
import { BudgetTooSmallError, HaystackTooShortError } from "../errors.js";
import { niah } from "../tasks/niah/niah.js";
import { budgetTolerance, fitToBudget, type Selection, selectedUnits, TextUnits, unitAt } from "./budget.js";
import { calibrated } from "./calibrated.js";
import { fromTokenizer, type Tokenizer, utf8Bytes } from "./tokenizer.js";

/** Not additive: runs of a letter are one token, whatever stands around. */
const runs: Tokenizer = {
  id: "runs",
  encode: (text) => Int32Array.from(text.match(/(.)\1*/gs) ?? [], (run) => run.length),
  count: (text) => text.match(/(.)\1*/gs)?.length ?? 0,
};

function setUp(texts: readonly string[], tokenizer: Tokenizer, head: string) {
  const units = new TextUnits((i) => texts[i], tokenizer, "");
  let counts = 0;
  const render = (selection: Selection) => {
    counts++;
    const parts = Array.from({ length: selectedUnits(selection) }, (_, k) => units.text(unitAt(selection, k))!);
    return [{ role: "user" as const, content: head + parts.join("") }];
  };
  return { units, render, counts: () => counts };
}

const texts = fc.array(fc.stringMatching(/^[abc]{1,40}$/), { minLength: 1, maxLength: 300 });

describe("fitToBudget", () => {
  it("finds the largest number of units by hand", () => {
    const { units, render } = setUp(["aaaa", "bbb", "cc", "dddddddd"], utf8Bytes, "12345");
    const fit = fitToBudget({ where: "test", render, units, maxTokens: 24, reserve: 9, tokenizer: utf8Bytes });
    // 5 + 4 + 3 + 2 = 14 fit into 15, and 8 more do not.
    expect(fit).toMatchObject({ selection: { count: 3, tail: [] }, promptTokens: 14, maxUnitTokens: 8 });
    expect(fit.fill).toBeCloseTo(14 / 15, 12);
  });

  it.each([utf8Bytes, runs])("fits as much as it can, whatever the tokenizer", (tokenizer) => {
    fc.assert(
      fc.property(texts, fc.integer({ min: 60, max: 4000 }), (list, maxTokens) => {
        const { units, render, counts } = setUp(list, tokenizer, "head");
        const count = (n: number) => tokenizer.count(render({ count: n, tail: [] })[0]!.content);
        const room = maxTokens - 50;
        let fit: ReturnType<typeof fitToBudget>;
        try {
          fit = fitToBudget({ where: "test", render, units, maxTokens, reserve: 50, tokenizer });
        } catch (error) {
          if (error instanceof BudgetTooSmallError) expect(count(0)).toBeGreaterThan(room);
          else {
            expect(error).toBeInstanceOf(HaystackTooShortError);
            expect(count(list.length)).toBeLessThan(room);
          }
          return;
        }
        expect(counts()).toBeLessThan(40);
        expect(fit.promptTokens).toBeLessThanOrEqual(room);
        const { selection } = fit;
        expect(count(selection.count)).toBeLessThanOrEqual(room);
        if (selection.count < list.length) expect(count(selection.count + 1)).toBeGreaterThan(room);
        if (selection.count < list.length) {
          expect(room - fit.promptTokens).toBeLessThanOrEqual(budgetTolerance(room, fit.maxUnitTokens));
        }
        expect(fit.promptTokens).toBe(tokenizer.count(fit.messages[0]!.content));
      }),
      { numRuns: 300 },
    );
  });

  it("fills a large remainder with later, smaller units", () => {
    const list = ["x".repeat(100), "y".repeat(500), "z".repeat(400), "w".repeat(90), "v".repeat(5)];
    const { units, render } = setUp(list, utf8Bytes, "");
    const fit = fitToBudget({ where: "test", render, units, maxTokens: 260, reserve: 0, tokenizer: utf8Bytes });
    // 100, then 500 and 400 do not fit; 90 does, and 70 are left, of which 5 can be used.
    expect(fit.selection).toEqual({ count: 1, tail: [3, 4] });
    expect(fit.promptTokens).toBe(195);
  });

  it("counts the template's overhead", () => {
    const { units, render } = setUp(["aaaa", "bbbb"], utf8Bytes, "");
    const options = { where: "test", render, units, maxTokens: 10, reserve: 0, tokenizer: utf8Bytes };
    expect(fitToBudget({ ...options, finite: true }).promptTokens).toBe(8);
    expect(fitToBudget({ ...options, overhead: (messages) => 3 * messages.length }).promptTokens).toBe(7);
  });

  it("takes few counts of a long prompt", () => {
    const { units, render, counts } = setUp(new Array(20_000).fill("seven.."), utf8Bytes, "head");
    fitToBudget({ where: "test", render, units, maxTokens: 100_000, reserve: 0, tokenizer: utf8Bytes });
    expect(counts()).toBeLessThanOrEqual(4);
  });
});

describe("subword tokenizers", () => {
  it("have their budgets met within the tolerance by every task", async () => {
    const data = await loadHuggingFaceTokenizer(join(goldenPath("tokenizers"), "gpt2-style", "tokenizer.json"));
    const tokenizer = fromTokenizer("gpt2-style", data);
    const oneOfEach = new Map(EVERY_TASK.map((variant) => [variant.name.split(" ")[0], variant]));
    for (const { name, generate } of oneOfEach.values()) {
      const sample = generate({ seed: 1, index: 1, maxTokens: 24_000, tokenizer, overhead: (m) => 4 * m.length });
      const { problems } = checkSample(sample, { tokenizer, overhead: (m) => 4 * m.length });
      expect(problems, name).toEqual([]);
    }
  });
});

describe("calibrated", () => {
  it("draws a line through two probes, with a margin", () => {
    const tokenizer = calibrated("endpoint", { bytes: 100, promptTokens: 37 }, { bytes: 1100, promptTokens: 287 });
    expect(tokenizer.overheadTokens).toBe(12);
    expect(tokenizer.tokensPerByte).toBeCloseTo(0.25, 12);
    expect(tokenizer.count("x".repeat(400))).toBe(101);
    const { budget } = niah({
      seed: 1,
      index: 0,
      maxTokens: 2000,
      tokenizer,
      overhead: () => tokenizer.overheadTokens,
    });
    expect(budget.promptTokens).toBeLessThanOrEqual(2000 - 128);
    expect(budget.promptTokens).toBeGreaterThan(1700);
  });

  it("refuses probes that make no line", () => {
    expect(() => calibrated("x", { bytes: 5, promptTokens: 9 }, { bytes: 5, promptTokens: 20 })).toThrow(/two probes/);
    expect(() => calibrated("x", { bytes: 5, promptTokens: 9 }, { bytes: 50, promptTokens: 9 })).toThrow(/two probes/);
  });
});
