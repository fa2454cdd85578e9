import { describe, expect, it } from "vitest";
import type { LineChart } from "../model.js";
import { movingAverage, shownSeries } from "./smooth.js";

describe("movingAverage", () => {
  it("is the weighted mean with weights decay^age", () => {
    // span 3: decay 1/2. [4, 8]: (4/2 + 8) / (1/2 + 1) = 10 / 1.5; [4, 8, 0]: (4/4 + 8/2) / (1/4 + 1/2 + 1) = 5 / 1.75
    expect(movingAverage([4, 8, 0], 3)).toEqual([4, 10 / 1.5, 5 / 1.75]);
  });

  it("leaves a constant alone, and gaps gaps", () => {
    expect(movingAverage([2, 2, Number.NaN, 2], 50)).toEqual(
      [2, 2, Number.NaN, 2].map((v) => (v === 2 ? expect.closeTo(2, 12) : v)),
    );
  });

  it("is the identity for a span of one", () => {
    expect(movingAverage([3, 1, 4], 1)).toEqual([3, 1, 4]);
  });
});

describe("shownSeries", () => {
  it("refuses a smoothing that is no number of points", () => {
    const chart: LineChart = {
      kind: "lineChart",
      title: "t",
      x: { label: "x" },
      y: { label: "y" },
      series: [],
      smoothing: 0,
    };
    expect(() => shownSeries(chart, { name: "s", x: [1], y: [1] })).toThrow(
      "smoothing must be 1 or more points; received 0",
    );
  });
});
