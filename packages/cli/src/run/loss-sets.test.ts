import { describe, expect, it } from "vitest";
import { measuredSets, setMetrics } from "./loss-sets.js";

describe("loss sets", () => {
  const estimate = { loss: Math.LN2, standardError: 0.1, tokens: 30 };

  it("are found again among the metrics, in their order", () => {
    const metrics = {
      validationLoss: 1,
      bitsPerByte: 2,
      ...setMetrics("source", "web crawl", estimate, 60),
      ...setMetrics("objective", "S-0.25", { ...estimate, standardError: Number.NaN }),
    };
    expect(measuredSets(metrics)).toEqual([
      // 30 bits for 60 bytes.
      { division: "source", name: "web crawl", loss: Math.LN2, standardError: 0.1, bitsPerByte: 0.5 },
      { division: "objective", name: "S-0.25", loss: Math.LN2, standardError: Number.NaN },
    ]);
  });

  it("are none of data that have none", () => {
    expect(measuredSets({ validationLoss: 1, validationLossStandardError: 0.1 })).toEqual([]);
  });
});
