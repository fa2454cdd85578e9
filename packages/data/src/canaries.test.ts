import { OptionError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { extractedShare, extractionTest, interleavedCanary, shuffledCanary } from "./canaries.js";

const counting = (length: number, first = 0) => Int32Array.from({ length }, (_, i) => first + i);

describe("interleavedCanary", () => {
  it("alternates runs of 50 and keeps both in order", () => {
    const canary = interleavedCanary(counting(500), counting(620, 1000));
    expect([canary[0], canary[49], canary[50], canary[99], canary[100]]).toEqual([0, 49, 1000, 1049, 50]);
    expect(canary.filter((id) => id < 1000)).toEqual(counting(500));
    expect(canary.filter((id) => id >= 1000)).toEqual(counting(620, 1000));
  });

  it("refuses short documents", () => {
    expect(() => interleavedCanary(counting(500), counting(499))).toThrow(
      "[interleavedCanary] a document of at least 500 tokens is needed; received 499.",
    );
  });
});

describe("shuffledCanary", () => {
  it("has the same tokens in an order of its seed and number", () => {
    const canary = shuffledCanary(counting(500), { seed: 1 });
    expect(canary).not.toEqual(counting(500));
    expect(canary.toSorted()).toEqual(counting(500));
    expect(shuffledCanary(counting(500), { seed: 1 })).toEqual(canary);
    expect(shuffledCanary(counting(500), { seed: 1, index: 1 })).not.toEqual(canary);
    expect(() => shuffledCanary(counting(10))).toThrow(OptionError);
  });
});

describe("extraction", () => {
  it("counts suffixes that came back whole", () => {
    const tests = [0, 1, 2].map((i) => extractionTest(counting(90, 100 * i)));
    expect([tests[1]!.prefix.length, tests[1]!.suffix[0], tests[1]!.suffix.length]).toEqual([60, 160, 30]);
    const generated = [counting(30, 60), counting(40, 160), counting(29, 260)];
    expect(extractedShare(tests, generated)).toBe(2 / 3);
    expect(() => extractedShare(tests, [])).toThrow(OptionError);
    expect(() => extractionTest(counting(99), { prefix: 50, suffix: 50 })).toThrow("need 100");
  });
});
