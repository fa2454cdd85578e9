import { describe, expect, it } from "vitest";
import type { Block, Report } from "../model.js";
import { assignStyles } from "./assign-styles.js";

const chart = (...names: string[]): Block => ({
  kind: "lineChart",
  title: "c",
  x: { label: "x" },
  y: { label: "y" },
  series: names.map((name) => ({ name, x: [], y: [] })),
});
const table = (...names: string[]): Block => ({
  kind: "table",
  columns: [{ header: "arm" }],
  rows: names.map((n) => [n]),
});
const report = (...blocks: Block[]): Report => ({ title: "r", sections: [{ title: "s", blocks }] });

describe("assignStyles", () => {
  it("starts anew for names that never stand together", () => {
    expect([...assignStyles(report(chart("a", "b"), chart("c", "d")))]).toEqual([
      ["a", 0],
      ["b", 1],
      ["c", 0],
      ["d", 1],
    ]);
  });

  it("keeps a name's style and tells companions of any chart or table apart", () => {
    const styles = assignStyles(
      report(chart("a", "b"), chart("c"), chart("c", "a"), chart("d"), table("d", "b", "no series")),
    );
    expect(Object.fromEntries(styles)).toEqual({ a: 0, b: 1, c: 1, d: 0 });
  });
});
