import {
  defaultDevice,
  exp,
  hostNumber,
  logSoftmax,
  memory,
  OptionError,
  randomNormal,
  resetPeakMemory,
  scope,
  softmax,
  sync,
  type Tensor,
  tensor,
  topK,
} from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { linearDistillationParts, sparseTargets } from "./index.js";

const [N, V, C] = [7, 11, 4];
const normal = (stream: number, shape: number[], dtype: "float32" | "float64" = "float64") =>
  randomNormal({ seed: 3, stream }, shape, { dtype });
const scores = () => ({ hidden: normal(1, [N, C]), weight: normal(2, [V, C]), softcap: 3 });
const values = (x: Tensor | undefined) => Array.from(x!.dataSync());

describe("sparseTargets", () => {
  it("has the likeliest tokens, their log-probabilities, and the rest's", () => {
    scope(() => {
      const logits = tensor([[Math.log(1), Math.log(5), Math.log(2), Math.log(2)]], { dtype: "float64" });
      const { ids, logProbs, tailLogProb } = sparseTargets({ logits }, { k: 2 });
      // Probabilities 0.1, 0.5, 0.2, 0.2: of the two equal ones the first.
      expect(values(ids)).toEqual([1, 2]);
      for (const [i, p] of [0.5, 0.2].entries()) expect(Math.exp(values(logProbs)[i]!)).toBeCloseTo(p, 14);
      expect(Math.exp(values(tailLogProb)[0]!)).toBeCloseTo(0.3, 14);
    });
  });

  it.each([V, 2 * V, 100 * V])("doesn't depend on the blocks, of %d logits", (blockElements) => {
    scope(() => {
      const wanted = sparseTargets(scores(), { k: 3 });
      const given = sparseTargets(scores(), { k: 3, blockElements });
      // On a GPU a row's sum is divided by the number of rows.
      for (const name of ["ids", "logProbs", "tailLogProb"] as const)
        if (defaultDevice() === "cpu") expect(values(given[name]), name).toEqual(values(wanted[name]));
        else
          for (const [i, value] of values(given[name]).entries())
            expect(value, name).toBeCloseTo(values(wanted[name])[i]!, 14);
      const draws = { seed: 1, stream: 2 };
      const drawn = (options: object) => values(sparseTargets(scores(), { k: 5, draws, ...options }).ids);
      expect(drawn({ blockElements })).toEqual(drawn({}));
    });
  });

  it("takes all tokens if k is larger, and several teachers by their averaged probabilities", () => {
    scope(() => {
      const other = { logits: normal(3, [N, V]) };
      const { ids, logProbs, tailLogProb } = sparseTargets([{ logits: normal(4, [N, V]) }, other], { k: 99 });
      expect([ids.shape, values(tailLogProb).every((log) => log === Number.NEGATIVE_INFINITY)]).toEqual([[N, V], true]);
      const average = softmax(normal(4, [N, V]))
        .add(softmax(other.logits))
        .mul(0.5);
      const wanted = values(topK(average, V).values);
      for (const [i, p] of values(exp(logProbs!)).entries()) expect(p).toBeCloseTo(wanted[i]!, 13);
    });
  });

  it("draws tokens as often as their probabilities say, others at another key", () => {
    scope(() => {
      const logits = tensor([[0, 1, 2, Number.NEGATIVE_INFINITY]], { dtype: "float64" });
      const k = 4000;
      const drawn = values(sparseTargets({ logits }, { k, draws: { seed: 1 } }).ids);
      const share = (id: number) => drawn.filter((one) => one === id).length / k;
      // Four standard deviations of a share.
      for (const [id, p] of values(softmax(logits)).entries())
        expect(Math.abs(share(id) - p)).toBeLessThanOrEqual(4 * Math.sqrt((p * (1 - p)) / k));
      expect(values(sparseTargets({ logits }, { k, draws: { seed: 2 } }).ids)).not.toEqual(drawn);
    });
  });

  it("of a teacher's output layer never holds the logits of all rows, nor does the loss", async () => {
    const [rows, width, vocab] = [2048, 8, 2048];
    const of = (stream: number, shape: number[]) => normal(stream, shape, "float32");
    const teacher = { hidden: of(1, [rows, width]), weight: of(2, [vocab, width]) };
    const [hidden, weight] = [of(3, [rows, width]), of(4, [vocab, width])];
    for (const mode of ["tail", "renorm", "sampled"] as const) {
      const peakOf = async (blockElements: number) => {
        await sync();
        resetPeakMemory();
        const before = memory().liveBytes;
        scope(() => {
          const draws = mode === "sampled" && { draws: { seed: 1 } };
          const target = sparseTargets(teacher, { k: 4, blockElements, ...draws });
          linearDistillationParts(hidden, weight, target, { mode, blockElements }).loss.itemSync();
        });
        return memory().peakBytes - before;
      };
      const logits = 4 * rows * vocab;
      expect(await peakOf(rows * vocab), mode).toBeGreaterThan(logits);
      expect(await peakOf(32 * vocab), mode).toBeLessThan(logits / 2);
    }
    for (const one of [...Object.values(teacher), hidden, weight]) one.dispose();
  });

  it("is in float32 for a teacher in half precision", () => {
    scope(() => {
      const half = { hidden: normal(1, [N, C]).astype("bfloat16"), weight: normal(2, [V, C]).astype("bfloat16") };
      const { logProbs } = sparseTargets(half, { k: V });
      expect(logProbs!.dtype).toBe("float32");
      for (const row of values(exp(logProbs!).sum({ axis: 1 }))) expect(row).toBeCloseTo(1, 5);
    });
  });

  it("takes a key of host numbers, as captured steps have", () => {
    scope(() => {
      const logits = logSoftmax(normal(1, [N, V]));
      const drawn = (stream: number) =>
        values(sparseTargets({ logits }, { k: 3, draws: { seed: 1, stream: hostNumber(() => stream) } }).ids);
      expect(drawn(4)).toEqual(values(sparseTargets({ logits }, { k: 3, draws: { seed: 1, stream: 4 } }).ids));
    });
  });

  it("refuses a k that is none, and no teacher", () => {
    scope(() => {
      for (const k of [0, 1.5, Number.NaN]) expect(() => sparseTargets(scores(), { k })).toThrow(OptionError);
      expect(() => sparseTargets(scores(), { k: 0 })).toThrow(
        "[sparseTargets] k must be a positive integer; received 0.",
      );
      expect(() => sparseTargets([], { k: 1 })).toThrow("at least one row; received none");
    });
  });
});
