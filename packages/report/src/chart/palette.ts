/**
 * How series are told apart: colour, dash and marker together, so that no difference rests on colour alone.
 * The colours are those of Okabe and Ito (jfly.uni-koeln.de/color), darkened for white paper and lightened for a dark
 * screen until each has a contrast of at least 3 to its ground (WCAG 2.2, 1.4.11).
 */

export const LIGHT_GROUND = "#ffffff";
export const DARK_GROUND = "#14171c";

/** `[on light, on dark]`, in the order in which series take them. */
export const SERIES_COLOURS = [
  ["#0067a8", "#5ab4ee"],
  ["#c94f00", "#ff9354"],
  ["#00795a", "#2cc698"],
  ["#a63d7b", "#ea9dc9"],
  ["#8a6400", "#e9bd3c"],
  ["#4b4f57", "#c3c8d0"],
  ["#2f86a8", "#9fdcf5"],
  ["#7a2e1d", "#d9a08f"],
] as const;

const DASHES = ["", "7 4", "2 3", "10 3 2 3", "12 4", "4 2", "8 3 2 3 2 3", "1 4"] as const;

type MarkerShape = (x: number, y: number, r: number) => string;

const polygon =
  (...corners: readonly (readonly [number, number])[]): MarkerShape =>
  (x, y, r) =>
    `M${corners.map(([dx, dy]) => `${round(x + dx * r)} ${round(y + dy * r)}`).join("L")}Z`;

/** Path data of each marker, of about equal area. */
const MARKERS: readonly MarkerShape[] = [
  (x, y, r) => `M${round(x - r)} ${round(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  polygon([-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]),
  polygon([0, -1.2], [1.1, 0.8], [-1.1, 0.8]),
  polygon([0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]),
  polygon([0, 1.2], [1.1, -0.8], [-1.1, -0.8]),
  polygon(
    [-0.4, -1.2],
    [0.4, -1.2],
    [0.4, -0.4],
    [1.2, -0.4],
    [1.2, 0.4],
    [0.4, 0.4],
    [0.4, 1.2],
    [-0.4, 1.2],
    [-0.4, 0.4],
    [-1.2, 0.4],
    [-1.2, -0.4],
    [-0.4, -0.4],
  ),
  polygon([-1.2, 0], [0.8, -1.1], [0.8, 1.1]),
  polygon([1.2, 0], [-0.8, -1.1], [-0.8, 1.1]),
];

export interface SeriesStyle {
  /** Class that sets the colour. */
  readonly className: string;
  /** Value of `stroke-dasharray`; empty for a solid line. */
  readonly dash: string;
  marker(x: number, y: number, radius: number): string;
}

/** The style of the series with this number; 64 numbers give 64 different styles. */
export function seriesStyle(index: number): SeriesStyle {
  const colour = index % SERIES_COLOURS.length;
  // Past the eighth series colours come back, with the dashes shifted.
  const dash = DASHES[(index + Math.floor(index / SERIES_COLOURS.length)) % DASHES.length]!;
  return { className: `c${colour}`, dash, marker: MARKERS[index % MARKERS.length]! };
}

export const KEY_WIDTH = 30;

/** A short piece of the line of a style with its marker, beginning at x; its colour is for whatever is around it to set. */
export function drawKey({ dash, marker }: SeriesStyle, x: number, y: number): string {
  const dashes = dash ? ` stroke-dasharray="${dash}"` : "";
  return `<path class="line"${dashes} d="M${x} ${y}h${KEY_WIDTH}"/><path class="marker" d="${marker(x + KEY_WIDTH / 2, y, 4)}"/>`;
}

/** Coordinates to a tenth of a pixel. */
export function round(value: number): number {
  return Math.round(value * 10) / 10;
}
