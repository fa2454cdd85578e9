/** Colours of values: dark blue over green to yellow, of even lightness steps, so that they are told apart without colour vision and in grey. */

/** Nine points of Matplotlib's viridis (van der Walt and Smith, CC0). */
const STOPS = [
  "#440154",
  "#472d7b",
  "#3b528b",
  "#2c728e",
  "#21918c",
  "#28ae80",
  "#5ec962",
  "#addc30",
  "#fde725",
] as const;

/** Colour at `share` of the scale, 0 to 1 (clipped), between the nearest two points, as `#rrggbb`. */
export function scaleColour(share: number): string {
  const at = Math.min(1, Math.max(0, share)) * (STOPS.length - 1);
  const index = Math.min(STOPS.length - 2, Math.floor(at));
  const [low, high] = [channels(STOPS[index]!), channels(STOPS[index + 1]!)];
  const mixed = low.map((value, i) => Math.round(value + (high[i]! - value) * (at - index)));
  return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** Black or white, whichever has the greater contrast to the colour (WCAG 2.2, relative luminance). */
export function inkOn(colour: string): "#000" | "#fff" {
  const linear = channels(colour).map((value) => {
    const c = value / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * linear[0]! + 0.7152 * linear[1]! + 0.0722 * linear[2]!;
  return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? "#000" : "#fff";
}

function channels(colour: string): number[] {
  return [1, 3, 5].map((i) => Number.parseInt(colour.slice(i, i + 2), 16));
}
