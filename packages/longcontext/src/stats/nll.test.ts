import { NonFiniteError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { cumulativeNll, nllBins, nllCurve } from "./nll-curve.js";
import { fitPowerLaw } from "./power-law.js";

describe("nllCurve", () => {
  it("averages over the documents that are long enough", () => {
    const long = Float64Array.from({ length: 300 }, (_, i) => (i < 128 ? 2 : 1));
    const short = new Float64Array(130).fill(4);
    expect(nllCurve([long, short])).toEqual([
      { position: 128, mean: 3, documents: 2 },
      { position: 256, mean: 1.5, documents: 1 },
    ]);
    expect(nllCurve([short], { positions: [1, 200] })).toEqual([
      { position: 1, mean: 4, documents: 1 },
      { position: 200, mean: null, documents: 0 },
    ]);
    expect(nllCurve([])).toEqual([]);
  });

  it("refuses NaN and positions that don't ascend", () => {
    expect(() => cumulativeNll([1, Number.NaN])).toThrow(NonFiniteError);
    expect(() => nllCurve([[1]], { positions: [2, 2] })).toThrow(OptionError);
    expect(() => nllCurve([[1]], { positions: [0.5] })).toThrow(OptionError);
  });
});

describe("nllBins", () => {
  it("weighs each token alike", () => {
    expect(nllBins([[1, 2, 3, 4, 5], [7]])).toEqual([
      { positions: [0, 1], mean: 4, tokens: 2 },
      { positions: [1, 2], mean: 2, tokens: 1 },
      { positions: [2, 4], mean: 3.5, tokens: 2 },
      { positions: [4, 8], mean: 5, tokens: 1 },
    ]);
  });

  it("adds up to the cumulative mean", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 20, noNaN: true }), { minLength: 1, maxLength: 200 }), (nll) => {
        const bins = nllBins([nll]);
        const total = bins.reduce((sum, { mean, tokens }) => sum + mean * tokens, 0);
        expect(total / nll.length).toBeCloseTo(cumulativeNll(nll).at(-1)!, 10);
      }),
    );
  });
});

describe("fitPowerLaw", () => {
  const positions = (count: number) => Array.from({ length: count }, (_, j) => 128 * 2 ** j);

  it("finds the law that made the points", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 4, max: 17 }),
        fc.double({ min: 0.1, max: 10, noNaN: true }),
        fc.double({ min: -2, max: -0.1, noNaN: true }),
        fc.double({ min: 0, max: 4, noNaN: true }),
        (count, alpha, beta, gamma) => {
          // Given at the first position, or a steep law would have died out before it.
          const x = positions(count);
          const scaled = alpha * 128 ** -beta;
          const fit = fitPowerLaw(
            x,
            x.map((value) => scaled * value ** beta + gamma),
          );
          expect(fit.beta).toBeCloseTo(beta, 5);
          expect(fit.alpha / scaled).toBeCloseTo(1, 4);
          expect(fit.gamma).toBeCloseTo(gamma, 5);
          expect(fit.sse).toBeLessThan(1e-20);
          expect(fit).toMatchObject({ degenerate: false, deviatesAt: null });
        },
      ),
    );
  });

  it("isn't moved by the order of the points, nor by the unit of x", () => {
    const x = positions(9);
    const y = x.map((value, i) => 3 * value ** -0.3 + 1 + (i % 3) / 500);
    const fit = fitPowerLaw(x, y);
    const turned = fitPowerLaw([...x].reverse(), [...y].reverse());
    expect(turned.beta).toBeCloseTo(fit.beta, 9);
    const inThousands = fitPowerLaw(
      x.map((value) => value / 1000),
      y,
    );
    expect(inThousands.beta).toBeCloseTo(fit.beta, 9);
    expect(inThousands.alpha).toBeCloseTo(fit.alpha * 1000 ** fit.beta, 6);
  });

  it("names the first position that is off the law", () => {
    const x = positions(14);
    const noise = [1, -1, 1, 1, -1, -1, 1, -1, 1, -1, 1, -1, 1, -1];
    const law = x.map((value, i) => 3 * value ** -0.4 + 1 + noise[i]! * 1e-4);
    expect(fitPowerLaw(x, law).deviatesAt).toBeNull();
    for (const off of [5, 9, 13]) {
      expect(fitPowerLaw(x, law.with(off, law[off]! + 0.01)).deviatesAt).toBe(x[off]);
    }
  });

  it("flags what isn't a falling power law", () => {
    const x = positions(8);
    expect(
      fitPowerLaw(
        x,
        x.map((_, i) => 3 - i / 10),
      ).degenerate,
    ).toBe(true);
    expect(
      fitPowerLaw(
        x,
        x.map((value) => 2 - value ** -0.5),
      ).degenerate,
    ).toBe(true);
    expect(fitPowerLaw(x.slice(0, 3), [3, 2, 1.5]).degenerate).toBe(true);
    expect(
      fitPowerLaw(
        x,
        x.map(() => 2),
      ),
    ).toMatchObject({ r2: null, gamma: 2, degenerate: true });
    expect(
      fitPowerLaw(
        x,
        x.map((_, i) => (i === 0 ? 3 : 1)),
      ).degenerate,
    ).toBe(true);
  });

  it("takes positions too near to each other for a constant", () => {
    const near = [1, 1 + Number.EPSILON, 1 + 2 * Number.EPSILON, 1 + 3 * Number.EPSILON];
    const fit = fitPowerLaw(near, [1, 2, 3, 4]);
    expect(Object.values(fit).every((value) => typeof value !== "number" || Number.isFinite(value))).toBe(true);
    expect(fit.degenerate).toBe(true);
  });

  it("refuses too few points and positions that aren't positive", () => {
    expect(() => fitPowerLaw([1], [1])).toThrow(OptionError);
    expect(() => fitPowerLaw([1, 2], [1])).toThrow(OptionError);
    expect(() => fitPowerLaw([0, 2], [1, 2])).toThrow(OptionError);
    expect(() => fitPowerLaw([2, 2], [1, 2])).toThrow(OptionError);
    expect(() => fitPowerLaw([1, 2], [1, Number.NaN])).toThrow(NonFiniteError);
  });
});
