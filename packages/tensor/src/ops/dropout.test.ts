import { describe, expect, it } from "vitest";
import { expectClose, expectSameBits, unitRoundoff } from "../../test/compare.js";
import { sample } from "../../test/numbers.js";
import * as t from "../index.js";

describe("dropout", () => {
  const key = { seed: 42, stream: 7 };

  it("drops where the uniform numbers of the key are below the rate, and scales the rest", () => {
    for (const n of [1, 255, 256, 257, 40_000]) {
      const x = sample([n], n, { dtype: "float32" });
      const u = t.randomUniform(key, [n]).dataSync();
      const expected = Array.from(x.dataSync(), (v, i) => (u[i]! >= 0.3 ? v / Math.fround(0.7) : 0));
      expectClose(t.dropout(x, 0.3, key).dataSync(), expected, { rtol: unitRoundoff.float32 });
    }
  });

  it("drops the same places in every layout and dtype", () => {
    const x = t.ones([70, 90]);
    const mask = (y: t.Tensor) => [...t.notEqual(y.astype("float32"), 0).dataSync()];
    const expected = mask(t.dropout(x, 0.5, key));
    expect(mask(t.dropout(t.ones([90, 70]).T, 0.5, key))).toEqual(expected);
    expect(mask(t.dropout(t.ones([1]).expand([70, 90]), 0.5, key))).toEqual(expected);
    expect(mask(t.dropout(x.astype("float64"), 0.5, key))).toEqual(expected);
  });

  it("keeps the mean within what chance allows", () => {
    // A kept element counts 1/(1 − p): the mean's standard deviation is √(p / (1 − p) / n); 5 of them.
    const [n, p] = [100_000, 0.2];
    const mean = t.mean(t.dropout(t.ones([n]), p, key)).itemSync();
    expect(Math.abs(mean - 1)).toBeLessThan(5 * Math.sqrt(p / (1 - p) / n));
  });

  it("changes nothing at rate 0 and leaves nothing at rate 1", () => {
    const x = sample([9], 1, { dtype: "float32" });
    const same = t.dropout(x, 0, key);
    expectSameBits(same.dataSync(), x.dataSync());
    same.dispose();
    expect(x.disposed).toBe(false);
    expect([...t.dropout(x, 1, key).dataSync()]).toEqual(new Array(9).fill(0));
  });
});
