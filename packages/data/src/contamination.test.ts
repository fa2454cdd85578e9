import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ContaminationCheck } from "./contamination.js";

const tokens = (text: string) => Array.from(Buffer.from(text));

/** By comparing every place with every place. */
function plainOverlap(heldOut: readonly number[], training: readonly (readonly number[])[], n: number) {
  const joined = (document: readonly number[], at: number) => document.slice(at, at + n).join();
  const known = new Set(
    training.flatMap((document) =>
      Array.from({ length: Math.max(0, document.length - n + 1) }, (_, at) => joined(document, at)),
    ),
  );
  const seen = Array.from({ length: Math.max(0, heldOut.length - n + 1) }, (_, at) => known.has(joined(heldOut, at)));
  const stretches = seen
    .map((_, at) => seen.slice(at).findIndex((one) => !one))
    .map((length, at) => (length < 0 ? seen.length - at : length));
  const longest = Math.max(0, ...stretches);
  return { runs: seen.length, shared: seen.filter(Boolean).length, longest: longest === 0 ? 0 : longest + n - 1 };
}

describe("ContaminationCheck", () => {
  it("counts the runs of a document that stand in the training text", () => {
    // Of "abcdefg", runs of 3: abc bcd cde def efg. "xabcdx" has abc and bcd, "efg" itself.
    const check = new ContaminationCheck([tokens("abcdefg"), tokens("zzzz"), tokens("ab")], { n: 3 });
    expect(check.add(tokens("xabcdx"))).toBe(2);
    expect(check.add(tokens("efg"))).toBe(1);
    expect(check.add(tokens("nothing"))).toBe(0);
    expect(check.overlaps()).toEqual([
      { runs: 5, shared: 3, share: 3 / 5, longest: 4 },
      { runs: 2, shared: 0, share: 0, longest: 0 },
      { runs: 0, shared: 0, share: 0, longest: 0 },
    ]);
    expect(check.training).toEqual({ documents: 3, sharing: 2 });
    expect([check.clean(), check.clean(0.6)]).toEqual([
      [1, 2],
      [0, 1, 2],
    ]);
  });

  it("finds runs of 15 tokens by default, in whatever document and how often they are", () => {
    const quote = "to be or not to be";
    const check = new ContaminationCheck([tokens(quote), tokens(quote.slice(0, 14))]);
    check.add(tokens(`Hamlet says: ${quote}, ${quote}.`));
    expect(check.overlaps()).toEqual([
      { runs: 4, shared: 4, share: 1, longest: 18 },
      { runs: 0, shared: 0, share: 0, longest: 0 },
    ]);
  });

  it("is what a comparison of all places finds", () => {
    const document = fc.array(fc.nat(2), { maxLength: 25 });
    fc.assert(
      fc.property(
        fc.array(document, { minLength: 1, maxLength: 4 }),
        fc.array(document, { maxLength: 4 }),
        fc.integer({ min: 1, max: 6 }),
        (heldOut, training, n) => {
          const check = new ContaminationCheck(heldOut, { n });
          for (const one of training) check.add(one);
          expect(check.overlaps().map(({ share: _, ...rest }) => rest)).toEqual(
            heldOut.map((one) => plainOverlap(one, training, n)),
          );
        },
      ),
    );
  });

  it("takes no equal hashes for equal tokens", () => {
    // Thue–Morse words and their complements have equal polynomial hashes modulo powers of two for any odd base, from 2^11 tokens on.
    const word = (bit: number) =>
      Int32Array.from({ length: 4096 }, (_, i) => ((i.toString(2).split("1").length - 1) % 2 === 0 ? bit : 1 - bit));
    const check = new ContaminationCheck([word(0)], { n: 4096 });
    expect(check.add(word(1))).toBe(0);
    expect(check.add(word(0))).toBe(1);
  });

  it("refuses nothing to compare with, and what are no documents or shares", () => {
    expect(() => new ContaminationCheck([])).toThrow(OptionError);
    expect(() => new ContaminationCheck([[1]], { n: 0 })).toThrow(
      "[ContaminationCheck] n must be an integer of at least 1",
    );
    const check = new ContaminationCheck([[1]]);
    expect(() => check.add(3 as never)).toThrow("a document must be a list of token ids; received number");
    expect(() => check.clean(1)).toThrow("mostShare must be in [0, 1); received 1");
  });
});
