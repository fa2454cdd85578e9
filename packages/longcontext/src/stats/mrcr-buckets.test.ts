import { describe, expect, it } from "vitest";
import { gdmMrcrBuckets, openAiMrcrBins } from "./mrcr-buckets.js";

const at = (tokens: number, score: number, cluster?: string) => ({
  tokens,
  score,
  ...(cluster === undefined ? {} : { cluster }),
});

describe("openAiMrcrBins", () => {
  it("has the eight doublings from 4k to 1M, of which the first holds its lower end", () => {
    const samples = [4095, 4096, 8192, 8193, 1_048_576, 1_048_577].map((tokens, i) => at(tokens, i / 5));
    const { bins, outside } = openAiMrcrBins(samples);
    expect(outside).toBe(2);
    expect(bins.map(({ tokens, samples: count, mean }) => [tokens, count, mean])).toEqual([
      // (1/5 + 2/5) / 2
      [[4096, 8192], 2, expect.closeTo(0.3, 12)],
      [[8192, 16_384], 1, expect.closeTo(0.6, 12)],
      [[524_288, 1_048_576], 1, expect.closeTo(0.8, 12)],
    ]);
  });

  it("has no bin without a sample", () => {
    expect(openAiMrcrBins([])).toEqual({ bins: [], outside: 0 });
  });
});

describe("gdmMrcrBuckets", () => {
  const highs = [8192, 16_384, 32_768, 65_536, 131_072];

  it("goes to 8M, and leaves out 4096 itself", () => {
    const { bins, outside } = gdmMrcrBuckets([4096, 4097, 8_388_608, 8_388_609].map((tokens) => at(tokens, 1)));
    expect(outside).toBe(2);
    expect(bins.map(({ tokens }) => tokens[1])).toEqual([8192, 8_388_608]);
  });

  it("counts every bucket up to 128k alike, however many samples it has", () => {
    const equal = highs.flatMap((tokens, i) => [at(tokens, i / 10), at(tokens, i / 5)]);
    const uneven = [...equal, at(8192, 0), at(8192, 0), at(262_144, 1)];
    // Means of the buckets: 0, 0.15, 0.3, 0.45, 0.6. Their deviations 0, 0.1, 0.2, 0.3, 0.4 over √2 are the standard deviations, over 2 the
    // standard errors: z · √(0.0025 + 0.01 + 0.0225 + 0.04) / 5 = z · 0.27386 / 5 = 0.10735.
    for (const samples of [equal, uneven]) {
      const { mean, low, high } = gdmMrcrBuckets(samples).upTo128k;
      expect(mean).toBeCloseTo(0.3, 12);
      expect(low).toBeCloseTo(0.3 - 0.10735, 5);
      expect(high).toBeCloseTo(0.3 + 0.10735, 5);
    }
    expect(gdmMrcrBuckets(uneven).upTo128k.n).toBe(12);
  });

  it("has no number up to 128k where a bucket is empty, and no interval where one has a single transcript", () => {
    expect(gdmMrcrBuckets(highs.slice(1).map((tokens) => at(tokens, 1))).upTo128k.mean).toBeNull();
    const queries = highs.flatMap((tokens) => [at(tokens, 1, `t${tokens}`), at(tokens, 0, `t${tokens}`)]);
    expect(gdmMrcrBuckets(queries).upTo128k).toEqual({ n: 5, mean: 0.5, low: null, high: null });
  });
});
