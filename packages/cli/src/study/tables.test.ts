import { renderTextTable } from "@llmeff/report";
import { describe, expect, it } from "vitest";
import type { ArmResult } from "./arm-result.js";
import type { Part } from "./load-study.js";
import { resultTable } from "./tables.js";

const part = (seeds: number[]) => ({ metric: "accuracy", target: 0.9, seeds, arms: [] }) as unknown as Part;

const result = (runs: number, tokensToTarget: number | null, reached: number) =>
  ({
    name: "arm",
    parameters: 10,
    activeParameters: 10,
    tokens: 3e6,
    seconds: 60,
    flopsPerToken: 1000,
    value: 0.9,
    standardError: 0.01,
    tokensToTarget,
    reached,
    runs: Array.from({ length: runs }),
  }) as unknown as ArmResult;

describe("resultTable", () => {
  it("shows the median of the tokens to the target and how many seeds got there", () => {
    const { rows, note } = resultTable(part([1, 2, 3]), [result(3, 983_040, 3), result(3, 1e6, 2), result(3, null, 1)]);
    expect(rows.map((row) => row[4])).toEqual(["983k (3/3)", "1.00M (2/3)", "– (1/3)"]);
    // 3M tokens of 1,000 operations in a minute.
    expect(rows[0]!.slice(2, 4)).toEqual([3e6, 3e9]);
    expect(rows[0]!.slice(5)).toEqual([{ value: 0.9, standardError: 0.01 }, 5e4, 1]);
    expect(note).toContain("Over 3 seeds: tokens to the target are the median");
  });

  it("shows what a token meets where some arm has experts that it doesn't", () => {
    const mixture = { ...result(1, null, 0), activeParameters: 4 };
    const { columns, rows } = resultTable(part([1]), [result(1, null, 0), mixture]);
    expect(columns.slice(1, 3).map(({ header }) => header)).toEqual(["Parameters", "a token meets"]);
    expect(rows.map((row) => row.slice(1, 3))).toEqual([
      [10, 10],
      [10, 4],
    ]);
  });

  it("shows plain numbers with one seed", () => {
    const table = resultTable(part([1]), [result(1, 983_040, 1), result(1, null, 0)]);
    expect(table.rows.map((row) => row[4])).toEqual([983_040, null]);
    expect(table.note).toContain("it doesn't hold what another seed would change");
    expect(renderTextTable(table)).toContain("983k");
  });
});
