import { OptionError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { holdOut } from "./hold-out.js";

describe("holdOut", () => {
  const texts = Array.from({ length: 5000 }, (_, i) => `document ${i}`);

  it("splits in the shares asked for, by the text alone", () => {
    const counts = { train: 0, valid: 0, test: 0 };
    for (const text of texts) counts[holdOut(text, { valid: 0.2, test: 0.1 })] += 1;
    for (const [split, share] of [
      ["valid", 0.2],
      ["test", 0.1],
    ] as const) {
      expect(Math.abs(counts[split] / 5000 - share)).toBeLessThan(4 * Math.sqrt((share * (1 - share)) / 5000));
    }
    expect(texts.map((text) => holdOut(text))).toEqual(texts.map((text) => holdOut(text)));
  });

  it("splits otherwise with another seed, and keeps the test as validation grows", () => {
    const splits = (options: object) => texts.map((text) => holdOut(text, options)).join();
    expect(splits({ valid: 0.5, seed: 1 })).not.toBe(splits({ valid: 0.5, seed: 2 }));
    const tested = (valid: number) => texts.filter((text) => holdOut(text, { valid, test: 0.1 }) === "test");
    expect(tested(0.1)).toEqual(tested(0.4));
  });

  it("refuses shares that leave nothing", () => {
    expect(() => holdOut("a", { valid: 0.6, test: 0.4 })).toThrow(OptionError);
    expect(() => holdOut("a", { valid: Number.NaN })).toThrow(OptionError);
  });
});
