import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MRCR_SCORERS, mrcrScores } from "./mrcr.js";

const answer = { hash: "aX3kQ9", reply: "Roses are red,\nviolets are blue." };

describe("mrcrScores", () => {
  it("differ in where the hash may stand", () => {
    const { hash, reply } = answer;
    // After the first of two hashes come 17 characters too many: 2·32 / (32 + 49).
    const rows: [response: string, strict: number, openai: number, gdmV2: number, michelangelo: number][] = [
      [`${hash}${reply}`, 1, 1, 1, 1],
      [`<think>hm, ${hash}?</think> ${hash} ${reply}`, 1, 0, 1, 64 / 81],
      [`Here: ${hash}${reply}`, 0, 0, 1, 1],
      [reply, 0, 0, 0, 0],
    ];
    for (const [response, strict, openai, gdmV2, michelangelo] of rows) {
      const scores = mrcrScores(answer, response);
      expect(scores).toMatchObject({ strict, openai, "gdm-v2": gdmV2, michelangelo });
      expect(scores.prefixHit).toBe(strict > 0);
      expect(scores.exact).toBe(strict === 1);
    }
  });

  it("give 0 to an empty reply and to reasoning that never ended", () => {
    expect(mrcrScores(answer, "")).toMatchObject({
      strict: 0,
      openai: 0,
      "gdm-v2": 0,
      michelangelo: 0,
      prefixHit: false,
    });
    expect(mrcrScores(answer, `<think>${answer.hash}${answer.reply}`).strict).toBe(0);
  });

  it("lie in [0, 1] for any response", () => {
    fc.assert(
      fc.property(fc.string(), fc.boolean(), (text, withHash) => {
        for (const scorer of Object.values(MRCR_SCORERS)) {
          const score = scorer(answer, withHash ? answer.hash + text : text);
          expect(score).toBeGreaterThanOrEqual(0);
          expect(score).toBeLessThanOrEqual(1);
        }
      }),
    );
  });

  it("refuse an empty hash", () => {
    for (const scorer of Object.values(MRCR_SCORERS)) {
      expect(() => scorer({ hash: "", reply: "x" }, "x")).toThrow(OptionError);
    }
  });
});
