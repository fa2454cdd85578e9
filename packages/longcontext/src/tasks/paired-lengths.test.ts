import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { EVERY_TASK } from "../check/every-task.js";
import type { Sample } from "../sample.js";
import { conlang } from "./conlang/conlang.js";
import { commonWords } from "./counting/common-words.js";
import { docQa } from "./doc-qa/doc-qa.js";
import { idk } from "./idk/idk.js";
import { mrcr } from "./mrcr/mrcr.js";
import { niah } from "./niah/niah.js";
import { variableTracking } from "./variable-tracking/variable-tracking.js";

/** The question: what follows the last blank line, in a program its last two lines. */
function question({ task, messages }: Sample): string {
  const { content } = messages.at(-1)!;
  return task === "latent_list" ? content.split("\n").slice(-2).join("\n") : content.split("\n\n").at(-1)!;
}

/** What must not change with the length. */
function relevant({ task, target, complexity, meta }: Sample): unknown {
  const { maxUnitTokens: _, fill: __, depths: ___, counts: ____, ...rest } = meta;
  return { task, target, complexity, rest };
}

/** Whether the lines of `short` stand in `long` in the same order. */
function isSubsequence(short: readonly string[], long: readonly string[]): boolean {
  let at = 0;
  for (const line of short) {
    at = long.indexOf(line, at) + 1;
    if (at === 0) return false;
  }
  return true;
}

describe.each(EVERY_TASK.map((variant) => [variant.name, variant] as const))("%s", (_, { generate, leastBytes }) => {
  it("has the same question, target and relevant items at every length", () => {
    for (let index = 0; index < 3; index++) {
      const [short, long, longer] = [1, 2, 8].map((factor) =>
        generate({ seed: 11, index, maxTokens: Math.max(leastBytes, 4096) * factor }),
      ) as [Sample, Sample, Sample];
      for (const other of [long, longer]) {
        expect(relevant(other)).toEqual(relevant(short));
        expect(question(other)).toBe(question(short));
        expect(other.id).not.toBe(short.id);
      }
    }
  });

  it("is the same again from the same seed, and another from another", () => {
    const make = (seed: number) => generate({ seed, index: 1, maxTokens: Math.max(leastBytes, 4096) });
    expect(make(5)).toEqual(make(5));
    expect(make(6).messages).not.toEqual(make(5).messages);
  });
});

describe("filler", () => {
  const pairs: [string, Sample, Sample][] = (
    [
      ["niah", (maxTokens) => niah({ seed: 1, index: 0, maxTokens }, { variant: "niah_mk1" })],
      ["niah_mk3", (maxTokens) => niah({ seed: 1, index: 0, maxTokens }, { variant: "niah_mk3" })],
      ["variable_tracking", (maxTokens) => variableTracking({ seed: 1, index: 0, maxTokens }, { haystack: "prose" })],
      ["doc_qa", (maxTokens) => docQa({ seed: 1, index: 0, maxTokens }, { hops: 2 })],
      ["idk", (maxTokens) => idk({ seed: 1, index: 0, maxTokens }, { filler: "stories", depth: 0.5 })],
      ["mrcr", (maxTokens) => mrcr({ seed: 1, index: 0, maxTokens })],
      ["conlang", (maxTokens) => conlang({ seed: 1, index: 0, maxTokens })],
    ] as [string, (maxTokens: number) => Sample][]
  ).map(([name, make]) => [name, make(16_384), make(131_072)]);
  const lines = ({ messages }: Sample): string[] => messages.flatMap(({ content }) => content.split("\n"));

  it.each(pairs)("of a shorter sample of %s is found in the longer", (_, short, long) => {
    const all = new Set(lines(long));
    expect(lines(short).filter((line) => !all.has(line))).toEqual([]);
  });

  it("of common words keeps its order", () => {
    const [short, long] = [16_384, 65_536].map((maxTokens) => {
      const words = commonWords({ seed: 1, index: 0, maxTokens }).messages[0]!.content.match(/(?<=\d\. )\S+/g)!;
      return [...words];
    }) as [string[], string[]];
    expect(isSubsequence(short, long)).toBe(true);
  });
});

describe("samples", () => {
  it("have the bytes of this generator version on every platform", () => {
    const hash = createHash("sha256");
    for (const { generate, leastBytes } of EVERY_TASK) {
      hash.update(JSON.stringify(generate({ seed: 2026, index: 3, maxTokens: Math.max(leastBytes, 4096) })));
    }
    // Where this differs after a change, samples have changed: raise GENERATOR_VERSION, then put the new hash here.
    expect(hash.digest("hex")).toBe("20f8230c085f1e808b578095173b7366dc0e146f09675fae8711ce12b0e474f6");
  });
});
