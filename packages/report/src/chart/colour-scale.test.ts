import { expect, it } from "vitest";
import { inkOn, scaleColour } from "./colour-scale.js";

it("goes from the first colour to the last, and clips", () => {
  expect([-1, 0, 0.5, 1, 2].map(scaleColour)).toEqual(["#440154", "#440154", "#21918c", "#fde725", "#fde725"]);
  expect(scaleColour(1 / 16)).toBe("#461768"); // midway from 44 01 54 to 47 2d 7b: 45.8 17 67.8
});

it("writes with a contrast of at least 4.5 on every colour", () => {
  const luminance = (colour: string) => {
    const full = colour.length === 4 ? colour.replace(/[0-9a-f]/g, "$&$&") : colour;
    const [r, g, b] = [1, 3, 5]
      .map((i) => Number.parseInt(full.slice(i, i + 2), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)) as [number, number, number];
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (let i = 0; i <= 200; i++) {
    const colour = scaleColour(i / 200);
    const [low, high] = [luminance(colour), luminance(inkOn(colour))].sort((a, b) => a - b) as [number, number];
    expect((high + 0.05) / (low + 0.05)).toBeGreaterThanOrEqual(4.5);
  }
});

it("grows lighter all the way", () => {
  const lightness = Array.from({ length: 101 }, (_, i) => scaleColour(i / 100)).map(
    (c) =>
      0.2126 * Number.parseInt(c.slice(1, 3), 16) +
      0.7152 * Number.parseInt(c.slice(3, 5), 16) +
      0.0722 * Number.parseInt(c.slice(5), 16),
  );
  for (let i = 1; i < lightness.length; i++) expect(lightness[i]!).toBeGreaterThanOrEqual(lightness[i - 1]!);
});
