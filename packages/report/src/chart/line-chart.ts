/**
 * A line chart as SVG. Each chart is drawn for a wide and a narrow page, and the style sheet shows the one that fits:
 * text keeps its size, which a scaled drawing would not.
 */
import { escapeHtml } from "../html/escape.js";
import type { LineChart, Series } from "../model.js";
import { round, type SeriesStyle, seriesStyle } from "./palette.js";
import { makeScale, type Scale } from "./scale.js";
import { shownSeries } from "./smooth.js";
import { checkSeries, thin } from "./thin.js";

export interface ChartSize {
  readonly className: string;
  readonly width: number;
  readonly height: number;
}

export const WIDE: ChartSize = { className: "wide", width: 760, height: 380 };
export const NARROW: ChartSize = { className: "narrow", width: 350, height: 300 };

const LINE_HEIGHT = 16;
/** Width of a character of the axis labels, about. */
const CHARACTER = 7;
const RIGHT_MARGIN = 18;
const MARKERS_A_LINE = 7;
const MARKER_RADIUS = 3.6;

/** The drawing area and its axes. */
export interface Frame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly x: Scale;
  readonly y: Scale;
}

/** Number of the style of each series name; see {@link seriesStyle}. */
export type StyleIndex = ReadonlyMap<string, number>;

/** The axes of a chart and the room that their labels leave. */
export function layOut(chart: LineChart, size: ChartSize): Frame {
  for (const series of chart.series) checkSeries(series);
  const narrow = size.width < 500;
  const x = makeScale(chart.x, xValues(chart), { count: narrow ? 4 : 8, nice: false });
  const y = makeScale(chart.y, yValues(chart), { count: narrow ? 5 : 6, nice: true });
  const labelWidth = Math.max(0, ...y.ticks.map((tick) => tick.label.length)) * CHARACTER;
  const left = Math.max(28, labelWidth + 12);
  const top = LINE_HEIGHT + 14;
  const bottom = 2 * LINE_HEIGHT + 14;
  return { left, top, width: size.width - left - RIGHT_MARGIN, height: size.height - top - bottom, x, y };
}

/** The SVG of one size. */
export function renderSvg(chart: LineChart, size: ChartSize, styles: StyleIndex): string {
  const frame = layOut(chart, size);
  const { left, top, width, height } = frame;
  const drawn = chart.series.map((series) => {
    const style = seriesStyle(styles.get(series.name) ?? 0);
    const shown = shownSeries(chart, series);
    const raw = shown === series ? "" : drawLine(placePoints(series, series.y, frame), `raw ${style.className}`, "");
    return { ...drawSeries(shown, frame, style), raw };
  });
  return [
    `<svg class="${size.className}" viewBox="0 0 ${size.width} ${size.height}" width="${size.width}" height="${size.height}" role="img" aria-label="${escapeHtml(describeChart(chart))}">`,
    drawAxes(chart, frame),
    // An inner svg clips what limits on an axis leave out, and needs no id for it.
    `<svg x="${left}" y="${top}" width="${width}" height="${height}" viewBox="${left} ${top} ${width} ${height}" overflow="hidden">`,
    ...drawn.map((parts) => parts.raw + parts.band),
    drawReferences(chart, frame),
    ...drawn.map((parts) => parts.line),
    "</svg>",
    ...drawn.map((parts) => parts.markers),
    "</svg>",
  ].join("");
}

/** The picture in words, for those who don't see it: axes, and where each line begins and ends. */
function describeChart(chart: LineChart): string {
  const lines = chart.series.map((series) => {
    const finite = Array.from(series.y).filter((value) => Number.isFinite(value));
    if (finite.length === 0) return `${series.name}: no values.`;
    const short = (value: number) => String(Number(value.toPrecision(4)));
    return `${series.name}: from ${short(finite[0]!)} to ${short(finite.at(-1)!)}.`;
  });
  return `Line chart of ${chart.y.label} against ${chart.x.label}. ${lines.join(" ")}`;
}

function* xValues(chart: LineChart): Generator<number> {
  for (const series of chart.series) for (let i = 0; i < series.x.length; i++) yield series.x[i]!;
}

function* yValues(chart: LineChart): Generator<number> {
  for (const { y, low, high } of chart.series) {
    for (const array of [y, low, high]) if (array) for (let i = 0; i < array.length; i++) yield array[i]!;
  }
  for (const reference of chart.references ?? []) yield reference.value;
}

function drawAxes(chart: LineChart, { left, top, width, height, x, y }: Frame): string {
  const bottom = top + height;
  const horizontal = y.ticks.map(({ position, label }) => {
    const at = round(bottom - position * height);
    return `<path class="grid" d="M${left} ${at}h${width}"/><text class="tick" x="${left - 8}" y="${at + 4}" text-anchor="end">${label}</text>`;
  });
  const vertical = x.ticks.map(({ position, label }) => {
    const at = round(left + position * width);
    // A long label at the very end must not leave the drawing.
    const over = Math.max(0, (label.length * CHARACTER) / 2 - (1 - position) * width - RIGHT_MARGIN);
    return `<path class="axis" d="M${at} ${bottom}v5"/><text class="tick" x="${round(at - over)}" y="${bottom + 19}" text-anchor="middle">${label}</text>`;
  });
  const scaleNote = (scale: Scale) => (scale.log ? ", log scale" : "");
  return [
    ...horizontal,
    ...vertical,
    `<path class="axis" d="M${left} ${bottom}h${width}"/>`,
    `<text class="label" x="0" y="13">${escapeHtml(chart.y.label + scaleNote(y))}</text>`,
    `<text class="label" x="${left + width}" y="${bottom + 40}" text-anchor="end">${escapeHtml(chart.x.label + scaleNote(x))}</text>`,
  ].join("");
}

function drawReferences(chart: LineChart, { left, top, width, height, y }: Frame): string {
  return (chart.references ?? [])
    .map(({ value, label }) => {
      const at = round(top + height - y.position(value) * height);
      if (!Number.isFinite(at)) return "";
      // Above the line, or below it where the drawing ends.
      const baseline = at < top + LINE_HEIGHT ? at + 14 : at - 6;
      return `<path class="reference" d="M${left} ${at}h${width}"/><text class="tick halo" x="${left + 6}" y="${baseline}">${escapeHtml(label)}</text>`;
    })
    .join("");
}

interface DrawnSeries {
  readonly band: string;
  readonly line: string;
  readonly markers: string;
}

interface Point {
  readonly x: number;
  readonly y: number;
  readonly index: number;
}

function drawSeries(series: Series, frame: Frame, style: SeriesStyle): DrawnSeries {
  const points = placePoints(series, series.y, frame);
  const { low, high } = series;
  return {
    band: low && high ? drawBand(placePoints(series, low, frame), placePoints(series, high, frame), style) : "",
    line: drawLine(points, `line ${style.className}`, style.dash),
    markers: drawMarkers(series, points, frame, style),
  };
}

/** Places of the points of `series` worth drawing, with the heights of `values`. */
function placePoints(series: Series, values: ArrayLike<number>, frame: Frame): Point[] {
  return thin(series, frame.x.position, Math.round(frame.width / 2)).map((index) => ({
    x: frame.left + frame.x.position(series.x[index]!) * frame.width,
    y: frame.top + frame.height - frame.y.position(values[index]!) * frame.height,
    index,
  }));
}

function drawLine(points: readonly Point[], className: string, dash: string): string {
  const dashes = dash ? ` stroke-dasharray="${dash}"` : "";
  return `<path class="${className}"${dashes} d="${runs(points).map(polyline).join("")}"/>`;
}

/** Stretches without a gap. */
function runs(points: readonly Point[]): Point[][] {
  const out: Point[][] = [[]];
  for (const point of points) {
    if (Number.isFinite(point.x) && Number.isFinite(point.y)) out.at(-1)!.push(point);
    else if (out.at(-1)!.length > 0) out.push([]);
  }
  return out.filter((run) => run.length > 0);
}

function polyline(run: readonly Point[]): string {
  // A point between two gaps is drawn as a dot: a line of no length with round ends.
  const closing = run.length === 1 ? "h0" : "";
  return `M${run.map((point) => `${round(point.x)} ${round(point.y)}`).join("L")}${closing}`;
}

function drawBand(low: readonly Point[], high: readonly Point[], style: SeriesStyle): string {
  const usable = low.map((point, i) => ({ ...point, top: high[i]!.y, y: point.y + 0 * high[i]!.y }));
  const shapes = runs(usable).map((run) => {
    const back = run.map((point) => ({ ...point, y: (point as (typeof usable)[number]).top })).reverse();
    return `M${[...run, ...back].map((point) => `${round(point.x)} ${round(point.y)}`).join("L")}Z`;
  });
  return `<path class="band ${style.className}" d="${shapes.join("")}"/>`;
}

/** A few markers along the line, at other places for every style, and one at the end. */
function drawMarkers(series: Series, points: readonly Point[], frame: Frame, style: SeriesStyle): string {
  const visible = points.filter(({ x, y }) => {
    const inside = y >= frame.top - 1 && y <= frame.top + frame.height + 1;
    return inside && x >= frame.left - 1 && x <= frame.left + frame.width + 1;
  });
  const shift = (Number(style.className.slice(1)) * 0.37) % 1;
  const chosen = new Set<Point>();
  if (visible.length <= MARKERS_A_LINE + 1) for (const point of visible) chosen.add(point);
  else {
    for (let i = 0; i < MARKERS_A_LINE; i++) {
      const target = frame.left + (frame.width * (i + 0.15 + 0.7 * shift)) / MARKERS_A_LINE;
      const nearest = visible.reduce((best, p) => (Math.abs(p.x - target) < Math.abs(best.x - target) ? p : best));
      chosen.add(nearest);
    }
    chosen.add(visible.at(-1)!);
  }
  return [...chosen]
    .map(({ x, y, index }) => {
      const value = `${series.name}: ${Number(series.y[index]!.toPrecision(5))} at ${Number(series.x[index]!.toPrecision(7))}`;
      return `<path class="marker ${style.className}" d="${style.marker(x, y, MARKER_RADIUS)}"><title>${escapeHtml(value)}</title></path>`;
    })
    .join("");
}
