/** Which series gets which style. */
import type { Block, Report } from "../model.js";
import type { StyleIndex } from "./line-chart.js";

/**
 * A name has one style in the whole report, and names that stand together in a chart or table have different ones.
 * Each name in order of appearance takes the first style that none of its companions has.
 */
export function assignStyles(report: Report): StyleIndex {
  const blocks = report.sections.flatMap((section) => section.blocks);
  const charts = blocks.map(seriesNames);
  const names = new Set(charts.flat());
  const groups = [...charts, ...blocks.map((block) => rowNames(block).filter((name) => names.has(name)))];
  const styles = new Map<string, number>();
  for (const name of names) {
    const companions = groups.filter((group) => group.includes(name)).flat();
    const taken = new Set(companions.map((companion) => styles.get(companion)));
    let index = 0;
    while (taken.has(index)) index++;
    styles.set(name, index);
  }
  return styles;
}

function seriesNames(block: Block): string[] {
  return block.kind === "lineChart" ? block.series.map((series) => series.name) : [];
}

function rowNames(block: Block): string[] {
  if (block.kind !== "table") return [];
  return block.rows.map((row) => row[0]).filter((cell) => typeof cell === "string");
}
