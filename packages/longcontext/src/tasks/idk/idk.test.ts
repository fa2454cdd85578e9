import { describe, expect, it } from "vitest";
import { idk } from "./idk.js";

describe("idk", () => {
  const samples = Array.from({ length: 300 }, (_, index) => idk({ seed: 1, index, maxTokens: 2048 }));

  it("has an answer in exactly three of ten, each letter equally often", () => {
    const count = (letter: string) => samples.filter(({ target }) => target === letter).length;
    expect(["A", "B", "C", "D"].map(count)).toEqual([30, 30, 30, 210]);
    for (const { meta, complexity, target } of samples) {
      expect(complexity).toBe(meta.answerable ? 1 : 0);
      expect(meta.answerable).toBe(target !== "D");
      expect(meta.choices[3]).toBe("I don't know");
    }
  });

  it("stands as the paper has it: story, letters, question", () => {
    expect(samples[0]!.messages[0]!.content).toMatch(
      /^An? [^\n]+\.\n(?:[A-Z] )+[A-Z]\.\n\nQuestion: [^\n]+\?\nChoices:\n\(A\) [^\n]+\n\(B\) [^\n]+\n\(C\) [^\n]+\n\(D\) I don't know\nAnswer:$/,
    );
  });

  it("moves the story to its depth", () => {
    const position = (depth: number) => {
      const { messages, meta } = idk({ seed: 1, index: 0, maxTokens: 32_768 }, { depth });
      return messages[0]!.content.indexOf(meta.facts[0]![0]) / messages[0]!.content.length;
    };
    expect(position(0)).toBeLessThan(0.02);
    expect(Math.abs(position(0.5) - 0.5)).toBeLessThan(0.02);
    expect(position(1)).toBeGreaterThan(0.95);
  });

  it("refuses another filler or depth", () => {
    expect(() => idk({ seed: 1, index: 0, maxTokens: 4096 }, { filler: "noise" as "prose" })).toThrow(/filler must be/);
    expect(() => idk({ seed: 1, index: 0, maxTokens: 4096 }, { depth: 2 })).toThrow(/depth must be/);
  });
});
