import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StopStrings } from "./stop-strings.js";

/** The text before the stop string that ends first, the longer of two that end together; and that string. */
function plainly(text: string, stops: readonly string[]): { text: string; found: string | undefined } {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length);
    if (ending[0] !== undefined) return { text: text.slice(0, end - ending[0].length), found: ending[0] };
  }
  return { text, found: undefined };
}

function inPieces(pieces: readonly string[], stops: readonly string[]): { text: string; found: string | undefined } {
  const search = new StopStrings(stops);
  let text = "";
  for (const piece of pieces) text += search.push(piece);
  return { text: text + search.end(), found: search.found };
}

describe("StopStrings", () => {
  it("holds back no more than may be a beginning", () => {
    const search = new StopStrings(["aab"]);
    expect(["xa", "a", "a", "c", "aa", "b", "d"].map((piece) => search.push(piece))).toEqual([
      "x", // a
      "", // aa
      "a", // aa
      "aac",
      "", // aa
      "", // found
      "",
    ]);
    expect([search.found, search.end()]).toEqual(["aab", ""]);
  });

  it("gives at the end what was held back", () => {
    const search = new StopStrings(["\n\n"]);
    expect([search.push("a\n"), search.end(), search.found]).toEqual(["a", "\n", undefined]);
    expect([search.push("\nb"), search.end()]).toEqual(["\nb", ""]);
  });

  it("takes the one that ends first, and of two that end together the longer", () => {
    expect(inPieces(["xabcd"], ["bcd", "c"])).toEqual({ text: "xab", found: "c" });
    expect(inPieces(["xab", "cd"], ["c", "abc"])).toEqual({ text: "x", found: "abc" });
  });

  it("finds the same however the text is cut", () => {
    const letters = fc.constantFrom("a", "b", "c", "😀");
    const text = fc.string({ unit: letters, maxLength: 20 });
    const stops = fc.array(fc.string({ unit: letters, minLength: 1, maxLength: 5 }), { maxLength: 3 });
    fc.assert(
      fc.property(fc.array(text, { maxLength: 8 }), stops, (pieces, stops) => {
        expect(inPieces(pieces, stops)).toEqual(plainly(pieces.join(""), stops));
      }),
      { numRuns: 500 },
    );
  });

  it("never holds back more than the longest stop string without its end", () => {
    const letters = fc.constantFrom("a", "b");
    const stop = fc.string({ unit: letters, minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(fc.string({ unit: letters, maxLength: 40 }), stop, (text, stop) => {
        const search = new StopStrings([stop]);
        let given = 0;
        for (const [i, letter] of [...text].entries()) {
          given += search.push(letter).length;
          if (search.found !== undefined) return;
          expect(i + 1 - given).toBeLessThan(stop.length);
        }
      }),
    );
  });

  it.each([[""], [3 as unknown as string]])("refuses %j", (stop) => {
    expect(() => new StopStrings(["a", stop])).toThrow(/a stop string must be a text that isn't empty; received/);
  });
});
