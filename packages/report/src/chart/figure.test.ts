import { describe, expect, it } from "vitest";
import type { LineChart, Series } from "../model.js";
import { renderFigure } from "./figure.js";

const line = (name: string): Series => ({ name, x: [1, 2, 4], y: [3, 2, 1] });
const chart = (...names: string[]): LineChart => ({
  kind: "lineChart",
  title: "Loss < 4 & falling",
  x: { label: "step" },
  y: { label: "nats" },
  series: names.map(line),
});
const sizeOf = (svg: string) =>
  svg
    .match(/viewBox="0 0 (\d+) (\d+)"/)!
    .slice(1)
    .map(Number);

describe("renderFigure", () => {
  it("is one SVG document with title, axes, and name, line and marker of every series", () => {
    const svg = renderFigure(chart("Adam", "S-Shampoo"));
    expect(svg.startsWith('<svg xmlns="http://www.w3.org/2000/svg"')).toBe(true);
    for (const text of ["Loss &lt; 4 &amp; falling", "nats", "step", "Adam", "S-Shampoo"])
      expect(svg).toContain(`>${text}<`);
    // In the drawing and in the legend.
    expect(svg.match(/<path class="line( c\d)?"/g)).toHaveLength(4);
    expect(svg.match(/<g class="c[01]">/g)).toEqual(['<g class="c0">', '<g class="c1">']);
  });

  it("asks for nothing from outside, and brings both colour schemes", () => {
    const svg = renderFigure(chart("Adam"));
    expect(svg).not.toMatch(/href=|url\(|@import|<script|<image|<foreignObject/);
    expect(svg).toContain("prefers-color-scheme:dark");
    for (const [, name] of svg.matchAll(/var\((--[a-z0-9-]+)\)/g)) expect(svg).toContain(`${name}:`);
  });

  it("grows by the lines of its legend", () => {
    const names = Array.from({ length: 12 }, (_, i) => `a rule with a long name, number ${i}`);
    const [width, height] = sizeOf(renderFigure(chart(...names))) as [number, number];
    const [sameWidth, lower] = sizeOf(renderFigure(chart("one"))) as [number, number];
    expect(sameWidth).toBe(width);
    expect(height).toBeGreaterThan(lower + 60);
    for (const [, x] of renderFigure(chart(...names)).matchAll(/class="name" x="([\d.]+)"/g))
      expect(Number(x)).toBeLessThan(width);
  });

  it("refuses what the chart of a report refuses", () => {
    expect(() => renderFigure({ ...chart(), series: [{ name: "a", x: [1, 2], y: [1] }] })).toThrow("a");
  });
});
