import { renderTextTable } from "@llmeff/report";
import { describe, expect, it } from "vitest";
import type { ArmResult } from "./arm-result.js";
import type { Part } from "./load-study.js";
import { differenceTable, partsTable, resultTable } from "./tables.js";

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
    runs: Array.from({ length: runs }, (_, i) => ({ outcome: { value: 0.9 + 0.01 * i } })),
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

describe("differenceTable", () => {
  const other = { ...result(3, null, 0), runs: [0.93, 0.93, 0.95].map((value) => ({ outcome: { value } })) };
  const results = [result(3, null, 0), other as unknown as ArmResult];

  it("compares the arms with the first over the same seeds", () => {
    // Differences 0.03, 0.02, 0.03: mean 0.0267, standard error 0.00333, half width 4.3027 times that, 0.0143.
    const shown = (given: Part) => {
      const { columns, rows } = differenceTable(given, results)!;
      return [columns[1]!.unit, rows[0]![0], ...rows[0]!.slice(1).map((x) => Number((x as number).toFixed(4)))];
    };
    expect(shown(part([1, 2, 3]))).toEqual(["percentage points", "arm", 2.6667, 1.2324, 4.1009]);
    const losses = {
      ...part([1, 2, 3]),
      metric: "validationLoss",
      arms: [{ config: { data: { kind: "documents" } } }],
    };
    expect(shown(losses as unknown as Part)).toEqual(["nats/token", "arm", 0.0267, 0.0123, 0.041]);
  });

  it("is nothing for one seed or one arm", () => {
    expect(differenceTable(part([1]), results)).toBeUndefined();
    expect(differenceTable(part([1, 2, 3]), results.slice(0, 1))).toBeUndefined();
  });
});

describe("partsTable", () => {
  const measured = (name: string, losses: readonly number[]) =>
    ({
      name,
      runs: losses.map((loss) => ({
        outcome: { metrics: { "objective/prefix/loss": loss, "objective/prefix/lossStandardError": 0.5 } },
      })),
    }) as unknown as ArmResult;
  const text = (seeds: number[]) =>
    ({
      ...part(seeds),
      metric: "validationLoss",
      arms: [{ config: { data: { kind: "documents" } } }],
    }) as unknown as Part;

  it("has the mean of each part over the seeds with its standard error", () => {
    const table = partsTable(text([1, 2]), [measured("one", [2, 4]), measured("two", [1, 1])])!;
    expect(table.columns.map(({ header }) => header)).toEqual(["Held out", "one", "two"]);
    // Of two values, the mean's standard error is half their distance.
    expect(table.rows).toEqual([["objective prefix", { value: 3, standardError: 1 }, { value: 1, standardError: 0 }]]);
  });

  it("has with one seed the error of the evaluation", () => {
    expect(partsTable(text([1]), [measured("one", [2])])!.rows).toEqual([
      ["objective prefix", { value: 2, standardError: 0.5 }],
    ]);
  });

  it("is nothing for data without parts", () => {
    const plain = { name: "arm", runs: [{ outcome: { metrics: { accuracy: 1 } } }] } as unknown as ArmResult;
    expect(partsTable(part([1]), [plain])).toBeUndefined();
  });
});
