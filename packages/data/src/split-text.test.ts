import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { splitBehaviors, splitText } from "./split-text.js";

describe("splitText", () => {
  // The reference implementation's own example.
  it.each([
    ["Removed", ["the", "final", "countdown"]],
    ["Isolated", ["the", "-", "final", "-", "-", "countdown"]],
    ["MergedWithPrevious", ["the-", "final-", "-", "countdown"]],
    ["MergedWithNext", ["the", "-final", "-", "-countdown"]],
    ["Contiguous", ["the", "-", "final", "--", "countdown"]],
  ] as const)("%s", (behavior, expected) => {
    expect(splitText("the-final--countdown", /-/gu, behavior)).toEqual(expected);
  });

  it("turns matches and gaps round", () => {
    expect(splitText("a1b22", /\d+/gu, "Removed", { invert: true })).toEqual(["1", "22"]);
    expect(splitText("a1b22", /\d+/gu, "Isolated", { invert: true })).toEqual(["a", "1", "b", "22"]);
    expect(splitText("a1b22", /\d+/gu, "MergedWithPrevious", { invert: true })).toEqual(["a", "1b", "22"]);
  });

  it("loses nothing but what is to be removed, and makes no empty piece", () => {
    const behaviors = fc.constantFrom(...splitBehaviors.filter((behavior) => behavior !== "Removed"));
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom("a", "-", "é") }),
        behaviors,
        fc.boolean(),
        (text, behavior, invert) => {
          for (const pattern of [/-/gu, /-*/gu, /a(?=-)/gu]) {
            const pieces = splitText(text, pattern, behavior, { invert });
            expect(pieces.join("")).toBe(text);
            expect(pieces).not.toContain("");
          }
        },
      ),
    );
  });
});
