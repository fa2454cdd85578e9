/** A heat map as SVG, drawn for a wide and for a narrow page like a line chart. */
import { ShapeError } from "@llmeff/native/errors";
import { formatNumber } from "../format.js";
import { escapeHtml } from "../html/escape.js";
import type { HeatMap, HeatMapCell } from "../model.js";
import { inkOn, scaleColour } from "./colour-scale.js";
import type { ChartSize } from "./line-chart.js";
import { round } from "./palette.js";

const LINE_HEIGHT = 16;
const CHARACTER = 6.6;
/** Least width that a value of four characters fits in. */
const NARROWEST_CELL = 32;
const WIDEST_CELL = 88;
const HATCH = 7;

/** @throws {ShapeError} if the cells are not as many as rows times columns */
export function checkHeatMap({ title, rows, columns, cells }: HeatMap): void {
  const wrong = cells.findIndex((row) => row.length !== columns.names.length);
  if (cells.length !== rows.names.length || wrong >= 0) {
    const found = wrong >= 0 ? `${cells[wrong]!.length} cells in row ${wrong}` : `${cells.length} rows of cells`;
    throw new ShapeError(
      `[heatMap] "${title}" names ${rows.names.length} rows and ${columns.names.length} columns but has ${found}.`,
    );
  }
}

/** The SVG of one size; wider than the page where the columns are many, for the page to scroll. */
export function renderHeatMapSvg(map: HeatMap, size: ChartSize): string {
  const { rows, columns } = map;
  const left = Math.ceil(Math.max(0, ...rows.names.map((name) => name.length)) * CHARACTER) + LINE_HEIGHT + 12;
  const top = 4;
  const cellWidth = Math.min(
    WIDEST_CELL,
    Math.max(NARROWEST_CELL, Math.floor((size.width - left - 2) / Math.max(1, columns.names.length))),
  );
  const cellHeight = Math.min(34, Math.max(24, Math.round(cellWidth * 0.6)));
  const width = left + cellWidth * columns.names.length + 2;
  const bottom = top + cellHeight * rows.names.length;
  const height = bottom + 2 * LINE_HEIGHT + 10;
  // Names of columns that would run into each other are left out in turn.
  const every = Math.ceil((Math.max(0, ...columns.names.map((name) => name.length)) * CHARACTER + 8) / cellWidth);
  const middle = (i: number) => round(left + (i + 0.5) * cellWidth);
  return [
    `<svg class="${size.className}" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="group" aria-label="${escapeHtml(map.title)}">`,
    ...rows.names.map(
      (name, i) =>
        `<text x="${left - 8}" y="${round(top + (i + 0.5) * cellHeight + 4)}" text-anchor="end">${escapeHtml(name)}</text>`,
    ),
    ...columns.names.map((name, i) =>
      i % every === 0
        ? `<text x="${middle(i)}" y="${bottom + LINE_HEIGHT}" text-anchor="middle">${escapeHtml(name)}</text>`
        : "",
    ),
    `<text class="label" x="${round(left + (width - left) / 2)}" y="${bottom + 2 * LINE_HEIGHT + 4}" text-anchor="middle">${escapeHtml(columns.label)}</text>`,
    `<text class="label" transform="translate(12 ${round((top + bottom) / 2)}) rotate(-90)" text-anchor="middle">${escapeHtml(rows.label)}</text>`,
    ...map.cells.flatMap((row, i) =>
      row.map((cell, j) => {
        const place = { x: left + j * cellWidth, y: top + i * cellHeight, width: cellWidth, height: cellHeight };
        return drawCell(map, cell, place, i, j);
      }),
    ),
    "</svg>",
  ].join("");
}

interface Place {
  x: number;
  y: number;
  width: number;
  height: number;
}

function drawCell(map: HeatMap, cell: HeatMapCell, place: Place, row: number, column: number): string {
  const { x, y, width, height } = place;
  const [low, high] = map.range ?? [0, 1];
  const fill = cell.value === null ? undefined : scaleColour((cell.value - low) / (high - low));
  const box = `x="${x + 1}" y="${y + 1}" width="${width - 2}" height="${height - 2}" rx="3"`;
  const text = cellText(map, cell);
  const ink = fill === undefined ? "" : ` fill="${inkOn(fill)}"`;
  // One cell takes part in the order of the page; the arrow keys lead to the others.
  const stop = row === 0 && column === 0 ? 0 : -1;
  return [
    `<g class="cell" tabindex="${stop}" role="img" data-row="${row}" data-column="${column}" aria-label="${escapeHtml(describeCell(map, cell, row, column))}">`,
    `<title>${escapeHtml(describeCell(map, cell, row, column))}</title>`,
    fill === undefined ? `<rect class="${cell.failed ? "failed" : "empty"}" ${box}/>` : `<rect ${box} fill="${fill}"/>`,
    cell.failed && fill === undefined ? `<path class="hatch" d="${hatch(place)}"/>` : "",
    text === ""
      ? ""
      : `<text x="${round(x + width / 2)}" y="${round(y + height / 2 + 4)}" text-anchor="middle"${ink}>${text}</text>`,
    "</g>",
  ].join("");
}

/** What is written into the cell. */
function cellText({ style }: HeatMap, { value }: HeatMapCell): string {
  if (value === null) return "";
  return style === "percent" ? (value * 100).toFixed(0) : formatNumber(value);
}

/** The cell in words. */
export function describeCell(map: HeatMap, cell: HeatMapCell, row: number, column: number): string {
  const { value, failed, note } = cell;
  const shown =
    value === null
      ? failed
        ? "failed"
        : "nothing measured"
      : map.style === "percent"
        ? formatNumber(value, "percent")
        : formatNumber(value);
  const place = `${map.rows.label} ${map.rows.names[row]}, ${map.columns.label} ${map.columns.names[column]}`;
  return `${place}: ${shown}${note ? ` (${note})` : ""}`;
}

/** Diagonals inside the cell, from its lower left to its upper right. */
function hatch({ x, y, width, height }: Place): string {
  const lines: string[] = [];
  for (let d = HATCH; d < width + height - 4; d += HATCH) {
    const from = d <= height - 4 ? [x + 2, y + 2 + d] : [x + 2 + d - (height - 4), y + height - 2];
    const to = d <= width - 4 ? [x + 2 + d, y + 2] : [x + width - 2, y + 2 + d - (width - 4)];
    lines.push(`M${from.map(round).join(" ")}L${to.map(round).join(" ")}`);
  }
  return lines.join("");
}
