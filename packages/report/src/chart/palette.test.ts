import { describe, expect, it } from "vitest";
import { DARK_THEME, LIGHT_THEME } from "../html/style.js";
import { SERIES_COLOURS, seriesStyle } from "./palette.js";

const channels = (hex: string) => [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16) / 255);
const linear = (hex: string) => channels(hex).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));

/** Relative luminance and contrast by WCAG 2.2. */
const luminance = (hex: string) => linear(hex).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i]!, 0);
const contrast = (a: string, b: string) => {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light! + 0.05) / (dark! + 0.05);
};

describe("colours", () => {
  it("of series stand out from their ground by 3 to 1", () => {
    for (const [light, dark] of SERIES_COLOURS) {
      expect(contrast(light, LIGHT_THEME.ground), light).toBeGreaterThanOrEqual(3);
      expect(contrast(dark, DARK_THEME.ground), dark).toBeGreaterThanOrEqual(3);
    }
  });

  it("of text stand out by 4.5 to 1", () => {
    for (const theme of [LIGHT_THEME, DARK_THEME]) {
      for (const text of [theme.ink, theme.muted, theme.accent]) {
        expect(contrast(text, theme.ground), text).toBeGreaterThanOrEqual(4.5);
      }
      expect(contrast(theme.muted, theme.raised)).toBeGreaterThanOrEqual(4.5);
      expect(contrast(theme.best, theme.bestGround)).toBeGreaterThanOrEqual(4.5);
    }
  });

  it("of the first four series differ for people without red or green cones", () => {
    // Viénot, Brettel & Mollon 1999: linear RGB as protanopes and deuteranopes see it.
    const simulations = [
      [
        [0.11238, 0.88762, 0],
        [0.11238, 0.88762, 0],
        [0.00401, -0.00401, 1],
      ],
      [
        [0.29275, 0.70725, 0],
        [0.29275, 0.70725, 0],
        [-0.02234, 0.02234, 1],
      ],
    ];
    for (const matrix of simulations) {
      for (const scheme of [0, 1] as const) {
        const seen = SERIES_COLOURS.slice(0, 4).map((pair) => {
          const rgb = linear(pair[scheme]);
          return matrix.map((row) =>
            Math.cbrt(
              Math.max(
                0,
                row.reduce((sum, w, i) => sum + w * rgb[i]!, 0),
              ),
            ),
          );
        });
        for (let a = 0; a < seen.length; a++) {
          for (let b = 0; b < a; b++) {
            expect(Math.hypot(...seen[a]!.map((v, i) => v - seen[b]![i]!)), `${a} and ${b}`).toBeGreaterThan(0.1);
          }
        }
      }
    }
  });
});

describe("seriesStyle", () => {
  it("gives 64 series 64 looks, and eight of them differ in dash and marker alone", () => {
    const look = (i: number) => {
      const { className, dash, marker } = seriesStyle(i);
      return { className, dash, marker: marker(0, 0, 4) };
    };
    const all = Array.from({ length: 64 }, (_, i) => look(i));
    expect(new Set(all.map((style) => JSON.stringify(style))).size).toBe(64);
    for (const key of ["className", "dash", "marker"] as const) {
      expect(new Set(all.slice(0, 8).map((style) => style[key])).size).toBe(8);
    }
  });
});
