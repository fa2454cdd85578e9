import { ShapeError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Table } from "./model.js";
import { renderMarkdownTable, renderTextTable } from "./table.js";
import { textWidth } from "./text-width.js";

const results: Table = {
  caption: "Results",
  columns: [
    { header: "Arm" },
    { header: "Parameters", style: "compact" },
    { header: "Validation", unit: "nats/char", best: "min" },
    { header: "Speed", unit: "tokens/s", style: "integer", best: "max" },
  ],
  rows: [
    ["dot-product · AdamW", 812_416, { value: 1.69551, standardError: 0.0061 }, 21_400],
    ["2-simplicial · SONew", 814_464, { value: 1.5928, standardError: 0.012 }, null],
    ["漢字", 1, { value: 2, standardError: 0 }, 9_000],
  ],
};

describe("renderTextTable", () => {
  it("lines up numbers, units and marks", () => {
    expect(renderTextTable(results)).toBe(
      [
        "Results",
        "                                        Validation     Speed",
        "Arm                   Parameters         nats/char  tokens/s",
        "────────────────────  ──────────  ────────────────  ────────",
        "dot-product · AdamW         812k  1.6955 ± 0.0061    21,400*",
        "2-simplicial · SONew        814k  1.5928 ± 0.0120*        –",
        "漢字                           1  2.0000 ± 0.0000     9,000",
      ].join("\n"),
    );
  });

  it("folds text columns when the terminal is narrow", () => {
    const lines = renderTextTable(results, { width: 52 }).split("\n");
    expect(lines).toContain("dot-product         812k  1.6955 ± 0.0061    21,400*");
    expect(lines).toContain("· AdamW");
  });

  it("turns rows into blocks when it is very narrow", () => {
    expect(renderTextTable(results, { width: 36 })).toContain("Validation (nats/…  1.5928 ± 0.0120*");
  });

  it("keeps to the width for any text and width", () => {
    const cell = fc.oneof(fc.string({ unit: "grapheme", maxLength: 30 }), fc.double(), fc.constant(null));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(cell, cell), { maxLength: 5 }),
        fc.string({ unit: "grapheme" }),
        fc.integer({ min: 24, max: 90 }),
        (rows, header, width) => {
          const table = { columns: [{ header }, { header: "b", unit: "s" }], rows };
          for (const line of renderTextTable(table, { width }).split("\n")) {
            expect(textWidth(line)).toBeLessThanOrEqual(width);
          }
        },
      ),
    );
  });

  it("marks ties, ignores NaN, and does not call a single value the best", () => {
    const column = { header: "x", best: "min" as const };
    expect(renderTextTable({ columns: [column], rows: [[1], [1], [2], [Number.NaN]] }).match(/\*/g)).toHaveLength(2);
    expect(renderTextTable({ columns: [column], rows: [[1], [null]] })).not.toContain("*");
  });

  it("lets no control character through", () => {
    const hostile = "\u001b[2Jx\ny";
    const text = renderTextTable({
      caption: hostile,
      columns: [{ header: hostile, unit: hostile }],
      rows: [[hostile]],
      note: hostile,
    });
    expect(text).not.toContain("\u001b");
    expect(text.split("\n")).toHaveLength(6);
  });

  it("names the row that does not fit", () => {
    const table = { columns: [{ header: "a" }, { header: "b" }], rows: [[1, 2], [3]] };
    expect(() => renderTextTable(table)).toThrow(ShapeError);
    expect(() => renderTextTable(table)).toThrow("[table] row 1 has 1 cells but there are 2 columns.");
  });
});

describe("renderMarkdownTable", () => {
  it("aligns, marks the best value and escapes what would be markup", () => {
    const table: Table = {
      columns: [{ header: "a|b" }, { header: "loss", unit: "nats", best: "min" }],
      rows: [
        ["<script>_x_|\n", 1.25],
        ["`code` [link](x)", 0.5],
      ],
    };
    expect(renderMarkdownTable(table).split("\n")).toEqual([
      "| a\\|b | loss (nats) |",
      "| :--- | ---: |",
      "| &lt;script&gt;\\_x\\_\\|  | 1.250 |",
      "| \\`code\\` \\[link\\](x) | **0.500** |",
    ]);
  });
});
