/**
 * A chart as an SVG file of its own, for READMEs and papers: title, legend and drawing, in the light or dark scheme of its reader.
 */
import { escapeHtml } from "../html/escape.js";
import { chartStyleSheet } from "../html/style.js";
import type { LineChart } from "../model.js";
import { assignStyles } from "./assign-styles.js";
import { renderSvg, type StyleIndex, WIDE } from "./line-chart.js";
import { drawKey, KEY_WIDTH, seriesStyle } from "./palette.js";

const MARGIN = 20;
const TITLE_HEIGHT = 30;
const LEGEND_LINE = 22;
const KEY_GAP = 8;
const ENTRY_GAP = 22;
/** Width of a character of the legend, about: nothing measures text before a browser does. */
const CHARACTER = 7;

/**
 * The SVG of a chart. It needs no other file, and follows the light or dark setting of whoever looks at it.
 *
 * @throws {ShapeError} if a series has the wrong length
 * @throws {OptionError} if the limits of an axis make no interval
 *
 * @example
 * await writeFile("loss.svg", renderFigure({ kind: "lineChart", title: "Loss", x: { label: "step" }, y: { label: "nats" }, series }));
 */
export function renderFigure(chart: LineChart): string {
  const styles = assignStyles({ title: chart.title, sections: [{ title: chart.title, blocks: [chart] }] });
  const { entries, height: legendHeight } = layOutLegend(chart);
  const drawingTop = MARGIN + TITLE_HEIGHT + legendHeight;
  const [width, height] = [WIDE.width + 2 * MARGIN, drawingTop + WIDE.height + MARGIN];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<style>${chartStyleSheet()}\n.${WIDE.className}{overflow:visible}svg .title{font-size:15px;font-weight:600;fill:var(--ink)}svg .name{font-size:13px;fill:var(--ink)}</style>`,
    `<rect width="${width}" height="${height}" fill="var(--ground)"/>`,
    `<text class="title" x="${MARGIN}" y="${MARGIN + 14}">${escapeHtml(chart.title)}</text>`,
    `<g transform="translate(${MARGIN} ${MARGIN + TITLE_HEIGHT})">${entries.map((entry) => drawEntry(entry, styles)).join("")}</g>`,
    `<g transform="translate(${MARGIN} ${drawingTop})">${renderSvg(chart, WIDE, styles)}</g>`,
    "</svg>\n",
  ].join("\n");
}

interface Entry {
  readonly name: string;
  readonly x: number;
  readonly y: number;
}

/** Names in as many lines as they need. */
function layOutLegend(chart: LineChart): { entries: Entry[]; height: number } {
  const entries: Entry[] = [];
  let [x, y] = [0, 0];
  for (const { name } of chart.series) {
    const width = KEY_WIDTH + KEY_GAP + name.length * CHARACTER;
    if (x > 0 && x + width > WIDE.width) [x, y] = [0, y + LEGEND_LINE];
    entries.push({ name, x, y });
    x += width + ENTRY_GAP;
  }
  return { entries, height: y + LEGEND_LINE + 6 };
}

function drawEntry({ name, x, y }: Entry, styles: StyleIndex): string {
  const style = seriesStyle(styles.get(name) ?? 0);
  const middle = y + 6;
  return (
    `<g class="${style.className}">${drawKey(style, x, middle)}</g>` +
    `<text class="name" x="${x + KEY_WIDTH + KEY_GAP}" y="${middle + 4}">${escapeHtml(name)}</text>`
  );
}
