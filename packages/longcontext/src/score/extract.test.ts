import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { printList } from "../tasks/latent-list/program.js";
import { extractChoice } from "./choice.js";
import { cleanMarkup, stripReasoning } from "./clean-response.js";
import { extractLatentList, latentListScore } from "./latent-list.js";
import { extractTranslation, translationScore } from "./translation.js";

describe("stripReasoning", () => {
  it("keeps what comes after the last block, and nothing of one that is open", () => {
    expect(stripReasoning("<think>a</think>b<thinking>c</thinking> d")).toBe(" d");
    expect(stripReasoning("x</think>y<reasoning>z")).toBe("y");
    expect(stripReasoning("no tags")).toBe("no tags");
  });
});

describe("cleanMarkup", () => {
  it("drops fences with their language, backticks and bold", () => {
    expect(cleanMarkup("  ```python\n`x` is **y**\n```\nz")).toBe("x is y\nz");
  });
});

describe("extractLatentList", () => {
  it("finds any printed list, however it is wrapped", () => {
    const lists = fc.array(fc.integer({ min: -9999, max: 9999 }));
    fc.assert(
      fc.property(
        lists,
        fc.constantFrom("", "Output: ", "So the **answer** is ", "It was [1], now "),
        (list, before) => {
          expect(extractLatentList("print", `${before}${printList(list)}\n`)).toBe(printList(list));
          expect(extractLatentList("print", `${before}\`[${list.join(",").replaceAll("-", "−")}]\``)).toBe(
            printList(list),
          );
        },
      ),
    );
  });

  it("finds any integer, and no part of another number", () => {
    fc.assert(
      fc.property(fc.integer(), (value) => {
        expect(extractLatentList("sum", `Output: ${value}`)).toBe(value + 0);
        expect(extractLatentList("sum", `The sum is ${value.toLocaleString("en-US")}.`)).toBe(value + 0);
        expect(extractLatentList("sum", `${value}.5`)).toBeNull();
        expect(extractLatentList("sum", `v${Math.abs(value)}`)).toBeNull();
      }),
    );
  });

  it("reads a list with numbers of any length, and no -0", () => {
    expect(extractLatentList("print", "[00123456789012345678901234567890, -0]")).toBe(
      "[123456789012345678901234567890, 0]",
    );
    expect(Object.is(extractLatentList("sum", "-0"), 0)).toBe(true);
    expect(extractLatentList("sum", "Output: 1,2345 or 6")).toBe(2345);
  });

  it("takes the first line alone of a base model", () => {
    expect(extractLatentList("sum", "\n 7\nOutput: 8", { mode: "completion" })).toBe(7);
    expect(extractLatentList("sum", "\n 7\nOutput: 8")).toBe(8);
  });

  it("takes linear time on text that nearly matches", () => {
    // Steps that grow with the square of the length would take minutes: more than a test may.
    for (const text of [
      `[1${" ".repeat(500_000)}x`,
      `[${"1,".repeat(250_000)}`,
      "[".repeat(500_000),
      `answer${" ".repeat(500_000)}`,
    ]) {
      expect(extractLatentList("print", text)).toBeNull();
    }
  });

  it("refuses a view that it doesn't know", () => {
    expect(() => extractLatentList("median" as "sum", "1")).toThrow(OptionError);
  });
});

describe("latentListScore", () => {
  it("falls with the distance and never leaves [0, 1]", () => {
    fc.assert(
      fc.property(fc.integer({ min: -99_999, max: 99_999 }), fc.integer(), fc.integer(), (target, x, y) => {
        const [near, far] = [x, y].sort((a, b) => Math.abs(a - target) - Math.abs(b - target)) as [number, number];
        const scoreNear = latentListScore("sum", String(target), near);
        const scoreFar = latentListScore("sum", String(target), far);
        expect(scoreNear).toBeGreaterThanOrEqual(scoreFar);
        expect(scoreFar).toBeGreaterThanOrEqual(0);
        expect(latentListScore("sum", String(target), target)).toBe(1);
      }),
    );
  });

  it("gives nothing for no answer or one of the wrong kind, and refuses a target that isn't a number", () => {
    expect(latentListScore("print", "[1]", null)).toBe(0);
    expect(latentListScore("print", "[1]", 1)).toBe(0);
    expect(latentListScore("max", "4", null)).toBe(0);
    expect(() => latentListScore("max", "[4]", 4)).toThrow(OptionError);
  });
});

describe("extractChoice", () => {
  const choices = ["Bulldog", "Husky", "Siberian Husky", "I don't know"];

  it.each([
    ["Option B", "B"],
    ["CHOICE: (c)", "C"],
    ["Answer: A", "A"],
    ["Answer: A\nbecause", "A"],
    ["First (A), then (B)", "B"],
    ["a bulldog!", "A"],
    ["bulldogs", null],
    ["They can’t be known", "D"],
    ["That couldn't be inferred.", "D"],
    ["There is insufficient evidence", "D"],
    ["It wasn't ever revealed", "D"],
    ["known unknowns", null],
    ["E", null],
  ])("%s is %s", (response, letter) => {
    expect(extractChoice(choices, response)).toBe(letter);
  });

  it("takes a text within another one for two", () => {
    expect(extractChoice(choices, "a husky")).toBe("B");
    expect(extractChoice(choices, "a siberian husky")).toBeNull();
  });

  it("reads each letter in each usual form", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(..."ABCD"),
        fc.constantFrom("(X)", "X.", "X)", "Answer: (X)", "The answer is X.", "**X**"),
        (letter, form) => {
          expect(extractChoice(["one", "two", "three", "I don't know"], form.replace("X", letter))).toBe(letter);
        },
      ),
    );
  });

  it("refuses any number of choices but four", () => {
    expect(() => extractChoice(["x"], "A")).toThrow(OptionError);
  });
});

describe("translationScore", () => {
  it("is perfect for any of the references", () => {
    const { exact, chrf, chrfPlusPlus, translation } = translationScore("Translation: “The  dog sleeps.”", [
      "A dog sleeps.",
      "The dog sleeps.",
    ]);
    expect({ exact, translation }).toEqual({ exact: true, translation: "The  dog sleeps." });
    expect([chrf, chrfPlusPlus]).toEqual([100, 100]);
  });

  it("is 0 for nothing", () => {
    expect(translationScore("Translation:", ["x"])).toEqual({
      translation: "",
      chrf: 0,
      chrfPlusPlus: 0,
      exact: false,
    });
  });

  it("keeps quotes that don't belong together", () => {
    expect(extractTranslation("'ko” lamu")).toBe("'ko” lamu");
    expect(extractTranslation('"')).toBe('"');
  });
});
