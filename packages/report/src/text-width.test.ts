import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { padText, printable, textWidth, truncateText, wrapText } from "./text-width.js";

const text = fc.string({ unit: fc.constantFrom("a", "é", "e\u0301", "漢", "한", "👩‍👩‍👧", "🇩🇪", " ", "·", "\u200b") });

describe("textWidth", () => {
  it.each([
    ["loss", 4],
    ["é", 1],
    ["e\u0301", 1],
    ["漢字", 4],
    ["👩‍👩‍👧", 2],
    ["🇩🇪", 2],
    ["a\u200bb", 2],
  ])("%s takes %d cells", (string, width) => {
    expect(textWidth(string)).toBe(width);
  });
});

describe("printable", () => {
  it("turns line breaks into spaces and defuses everything that could drive a terminal", () => {
    expect(printable("a\r\nb\tc")).toBe("a b c");
    expect(printable("\u001b[31m\u009b\u0000\u202e")).toBe("\ufffd[31m\ufffd\ufffd\ufffd");
  });
});

describe("truncateText", () => {
  it("fits, and keeps what fits already", () => {
    fc.assert(
      fc.property(text, fc.integer({ min: 0, max: 12 }), (string, width) => {
        const cut = truncateText(string, width);
        expect(textWidth(cut)).toBeLessThanOrEqual(width);
        if (textWidth(string) <= width) expect(cut).toBe(string);
      }),
    );
  });
});

describe("wrapText", () => {
  it("fits, and loses nothing but spaces", () => {
    fc.assert(
      fc.property(text, fc.integer({ min: 2, max: 12 }), (string, width) => {
        const lines = wrapText(string, width);
        for (const line of lines) expect(textWidth(line)).toBeLessThanOrEqual(width);
        expect(lines.join("").replace(/ /g, "")).toBe(string.replace(/ /g, ""));
      }),
    );
  });

  it("breaks at spaces where it can", () => {
    expect(wrapText("two dot-product layers", 11)).toEqual(["two", "dot-product", "layers"]);
  });
});

describe("padText", () => {
  it("fills by cells, not by characters", () => {
    expect(padText("漢", 4, "right")).toBe("  漢");
    expect(padText("é", 3, "left")).toBe("é  ");
  });
});
