/** A heat map's place in the page: title, both drawings, the words of the cell that is looked at, scale, table. */
import { scaleColour } from "../chart/colour-scale.js";
import { checkHeatMap, describeCell, renderHeatMapSvg } from "../chart/heat-map.js";
import { NARROW, type StyleIndex, WIDE } from "../chart/line-chart.js";
import { formatNumber } from "../format.js";
import type { HeatMap, Table } from "../model.js";
import { escapeHtml } from "./escape.js";

export function renderHeatMap(
  map: HeatMap,
  styles: StyleIndex,
  renderTable: (table: Table, styles: StyleIndex) => string,
): string {
  checkHeatMap(map);
  const title = escapeHtml(map.title);
  const empty = map.cells.length === 0 || map.columns.names.length === 0;
  return [
    `<figure class="heat"><h3>${title}</h3>`,
    empty ? '<p class="note">Nothing measured.</p>' : drawing(map),
    map.caption ? `<figcaption>${escapeHtml(map.caption)}</figcaption>` : "",
    empty ? "" : `<details><summary>${title} as a table</summary>${renderTable(tableOf(map), styles)}</details>`,
    "</figure>",
  ].join("\n");
}

function drawing(map: HeatMap): string {
  return [
    `<div class="plot scroll" role="group" aria-label="${escapeHtml(map.title)}. Arrow keys go from cell to cell.">`,
    renderHeatMapSvg(map, WIDE),
    renderHeatMapSvg(map, NARROW),
    "</div>",
    `<p class="note told" role="status">${escapeHtml(describeCell(map, map.cells[0]![0]!, 0, 0))}</p>`,
    scale(map),
  ].join("\n");
}

function scale({ range = [0, 1], style, cells }: HeatMap): string {
  const write = (value: number) => (style === "percent" ? formatNumber(value, "percent", 0) : formatNumber(value));
  const steps = Array.from(
    { length: 40 },
    (_, i) => `<rect x="${i * 4}" width="4.5" height="10" fill="${scaleColour(i / 39)}"/>`,
  );
  const failed = cells.flat().some((cell) => cell.failed && cell.value === null);
  return [
    '<ul class="legend">',
    `<li>${escapeHtml(write(range[0]))}<svg class="key" width="160" height="10" viewBox="0 0 160 10" aria-hidden="true">${steps.join("")}</svg>${escapeHtml(write(range[1]))}</li>`,
    failed
      ? '<li><svg class="key" width="22" height="12" viewBox="0 0 22 12" aria-hidden="true"><rect class="failed" width="22" height="12" rx="3"/><path class="hatch" d="M2 10L10 2M9 10L17 2M15 10L20 5"/></svg>only failures</li>'
      : "",
    "</ul>",
  ].join("");
}

function tableOf(map: HeatMap): Table {
  const { rows, columns, cells, style } = map;
  const digits = style === "percent" ? { style: "percent" as const, digits: 1 } : {};
  return {
    caption: map.title,
    columns: [
      { header: rows.label },
      ...columns.names.map((header) => ({ header, align: "right" as const, ...digits })),
    ],
    rows: cells.map((row, i) => [
      rows.names[i]!,
      ...row.map(({ value, failed }) => value ?? (failed ? "failed" : null)),
    ]),
  };
}
