/** A chart's place in the page: title, legend, both drawings, data for the pointer, caption. */
import { layOut, NARROW, renderSvg, type StyleIndex, WIDE } from "../chart/line-chart.js";
import { drawKey, KEY_WIDTH, seriesStyle } from "../chart/palette.js";
import { shownSeries } from "../chart/smooth.js";
import { thin } from "../chart/thin.js";
import type { LineChart, Series } from "../model.js";
import { escapeHtml, escapeJson } from "./escape.js";

/** Points a series keeps for reading values off: as many as pixels that a pointer can tell apart. */
const READABLE_POINTS = 180;

export function renderChart(chart: LineChart, styles: StyleIndex): string {
  const legend = chart.series.map(
    (series) => `<li>${legendKey(styles.get(series.name) ?? 0)}<span>${escapeHtml(series.name)}</span></li>`,
  );
  const smoothed =
    chart.smoothing === undefined
      ? ""
      : `Lines are averages over about ${chart.smoothing} points; faint behind them, the points.`;
  const caption = [chart.caption, smoothed].filter(Boolean).join(" ");
  return [
    `<figure><h3>${escapeHtml(chart.title)}</h3>`,
    `<ul class="legend">${legend.join("")}</ul>`,
    `<div class="plot" tabindex="0" role="group" aria-label="${escapeHtml(chart.title)}. Arrow keys read values.">`,
    renderSvg(chart, WIDE, styles),
    renderSvg(chart, NARROW, styles),
    `<div class="tip" role="status" hidden></div>`,
    `<script type="application/json">${escapeJson(pointerData(chart, styles))}</script>`,
    "</div>",
    caption === "" ? "" : `<figcaption>${escapeHtml(caption)}</figcaption>`,
    "</figure>",
  ].join("\n");
}

/** How a series is drawn, for legends and tables. */
export function legendKey(index: number): string {
  const style = seriesStyle(index);
  return (
    `<svg class="key ${style.className}" width="${KEY_WIDTH}" height="12" viewBox="0 0 ${KEY_WIDTH} 12" aria-hidden="true">` +
    `${drawKey(style, 0, 6)}</svg>`
  );
}

function pointerData(chart: LineChart, styles: StyleIndex) {
  const frames = [WIDE, NARROW].map((size) => ({ size, frame: layOut(chart, size) }));
  const { x } = frames[0]!.frame;
  return {
    label: chart.x.label,
    log: x.log,
    x: x.domain,
    percent: chart.y.style === "percent",
    frames: frames.map(({ size, frame: { left, top, width, height } }) => ({
      left,
      top,
      width,
      height,
      total: size.width,
    })),
    series: chart.series.map((series) => ({
      name: series.name,
      style: seriesStyle(styles.get(series.name) ?? 0).className,
      ...readablePoints(shownSeries(chart, series), x.position),
    })),
  };
}

function readablePoints(series: Series, place: (x: number) => number): { x: number[]; y: number[] } {
  const usable = thin(series, place, READABLE_POINTS).filter((i) => {
    const at = place(series.x[i]!);
    return at >= 0 && at <= 1 && Number.isFinite(series.y[i]!);
  });
  return {
    x: usable.map((i) => Number(series.x[i]!.toPrecision(7))),
    y: usable.map((i) => Number(series.y[i]!.toPrecision(5))),
  };
}
