import { memory, randomNormal, type Tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { targetScores } from "./target-scores.js";

describe("targetScores", () => {
  it("computes the logits in blocks of rows, and keeps none of them", async () => {
    const V = 2 ** 21; // of which two rows are as many logits as may exist at a time
    using hidden = randomNormal({ seed: 1 }, [5, 3], { dtype: "float64" });
    using weight = randomNormal({ seed: 2 }, [3, V], { dtype: "float64" });
    const blocks: number[] = [];
    const head = (rows: Tensor) => {
      blocks.push(rows.shape[0]!);
      return rows.matmul(weight);
    };
    const before = memory().tensors;
    const ids = Int32Array.of(4, V - 1, 0, 77);
    const found = await targetScores(hidden, head, { ids, top: 2 }, V);
    expect(blocks).toEqual([2, 2]);
    expect(memory().tensors).toBe(before);
    const [h, w] = [hidden.dataSync(), weight.dataSync()] as [Float64Array, Float64Array];
    for (const [row, { id, logProb, top }] of found.entries()) {
      const z = Float64Array.from({ length: V }, (_, v) =>
        [0, 1, 2].reduce((sum, c) => sum + h[3 * row + c]! * w[c * V + v]!, 0),
      );
      let [best, total] = [0, 0];
      for (const [v, x] of z.entries()) {
        if (x > z[best]!) best = v;
        total += Math.exp(x);
      }
      expect(id).toBe(ids[row]);
      expect(logProb).toBeCloseTo(z[id]! - Math.log(total), 9);
      expect(top.map((token) => token.id)[0]).toBe(best);
      expect(top[0]!.logProb).toBeCloseTo(z[best]! - Math.log(total), 9);
      expect(top[1]!.logProb).toBeLessThanOrEqual(top[0]!.logProb);
    }
  });
});
