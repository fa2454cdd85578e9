import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { describeGolden } from "../../../../../test/golden.js";
import { englishSentence } from "./english.js";
import type { Clause, Grammar } from "./grammar.js";
import { constructedSentence } from "./realize.js";

interface Golden {
  conlang: { grammar: Grammar; items: { ast: Clause; english: string; constructed: string }[] }[];
}

describeGolden("longcontext.json", (path) => {
  const { conlang } = JSON.parse(readFileSync(path, "utf8")) as Golden;

  it.each(conlang.map((entry, i) => [i, entry] as const))("conlang %i", (_, { grammar, items }) => {
    for (const { ast, english, constructed } of items) {
      expect(constructedSentence(ast, grammar)).toBe(constructed);
      expect(englishSentence(ast, grammar)).toBe(english);
    }
  });
});
