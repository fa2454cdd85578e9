import { type BatchSet, IGNORE_INDEX, sequentialWindows } from "@llmeff/data";
import { full, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import {
  batchOf,
  seqLen,
  tinyLogits,
  tinyLoss,
  tinyLossPerToken,
  tinyParams,
  tinyTokens,
  vocabSize,
} from "../test/tiny-model.js";
import { tensorsOf } from "./gradients.js";
import { bitsPerByte, evaluateAccuracy, evaluateLoss, evaluateLossBySet, type TrainBatch } from "./index.js";

const setOf = (...batches: ReturnType<typeof batchOf>[]): BatchSet => ({
  targetCount: batches.flatMap(({ targets }) => [...targets]).filter((target) => target !== IGNORE_INDEX).length,
  [Symbol.iterator]: () => batches[Symbol.iterator](),
});
const asLoss = (_params: object, { targets }: TrainBatch) => targets.astype("float32");

describe("evaluateLoss", () => {
  it("weighs every valid target alike, over batches of different sizes, and takes sequences as the units of error", async () => {
    // Losses 1 2 | 4 _ and 5 _: sums 3, 4, 5 over 2, 1, 1 targets. L = 12/4 = 3; residuals -3, 1, 2; 3/2 · 14 / 16 = 1.3125.
    const set = setOf(
      batchOf([
        [1, 2],
        [4, IGNORE_INDEX],
      ]),
      batchOf([[5, IGNORE_INDEX]]),
    );
    expect(await evaluateLoss(asLoss, {}, set)).toEqual({ loss: 3, standardError: Math.sqrt(1.3125), tokens: 4 });
  });

  it("takes an object with lossPerToken and keeps its this", async () => {
    const model = {
      factor: 2,
      lossPerToken(_params: object, { targets }: TrainBatch) {
        return targets.astype("float32").mul(this.factor);
      },
    };
    expect(await evaluateLoss(model, {}, setOf(batchOf([[1, 2]])))).toMatchObject({ loss: 3, tokens: 2 });
  });

  it("equals the training loss of one batch with all windows", async () => {
    const params = tinyParams(2, "float64");
    const tokens = tinyTokens(seqLen * 6 - 3);
    const set = sequentialWindows(tokens, { seqLen, batchSize: 4 });
    const [whole] = sequentialWindows(tokens, { seqLen, batchSize: 6 });
    const { loss, tokens: count } = await evaluateLoss(tinyLossPerToken, params, set);
    expect(loss).toBeCloseTo(await tinyLoss(params, tensorsOf(whole!, params)).item(), 12);
    expect(count).toBe(tokens.length - 1);
  });

  it("refuses another shape and heeds its signal", async () => {
    const set = setOf(batchOf([[1, 2]]));
    await expect(evaluateLoss(() => full([2, 1], 0), {}, set)).rejects.toThrow(
      "[evaluateLoss] the model must return [1, 2]; received [2, 1].",
    );
    const reason = new Error("enough");
    await expect(evaluateLoss(asLoss, {}, set, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

describe("evaluateAccuracy", () => {
  it("counts the valid targets that have the largest logit", async () => {
    const logits = () =>
      tensor([
        [
          [0, 3, 1],
          [9, 2, 1],
          [0, 0, 0],
        ],
        [
          [1, 2, 3],
          [3, 2, 1],
          [1, 3, 2],
        ],
      ]);
    const set = setOf(
      batchOf([
        [1, 1, 0],
        [2, IGNORE_INDEX, 1],
      ]),
    );
    // Row 1: right, wrong, right (the first of equal ones); row 2: right, ignored, right. Residuals 2 - 2.4 and 2 - 1.6.
    const { accuracy, standardError, tokens } = await evaluateAccuracy(logits, {}, set);
    expect([accuracy, tokens]).toEqual([0.8, 5]);
    expect(standardError).toBeCloseTo(Math.sqrt((2 * (0.4 ** 2 + 0.4 ** 2)) / 25), 12);
  });

  it("is about chance for an untrained model", async () => {
    const set = sequentialWindows(tinyTokens(2000), { seqLen, batchSize: 32 });
    const { accuracy, tokens } = await evaluateAccuracy(tinyLogits, tinyParams(), set);
    expect(tokens).toBe(1999);
    expect(Math.abs(accuracy - 1 / vocabSize)).toBeLessThan(0.1);
  });

  it("takes no target for right where the logits are NaN", async () => {
    const logits = () => full([1, 2, 3], Number.NaN);
    expect(await evaluateAccuracy(logits, {}, setOf(batchOf([[0, 1]])))).toMatchObject({ accuracy: 0, tokens: 2 });
    const inOnePlace = () =>
      tensor([
        [
          [0, Number.NaN, 2],
          [0, 1, 2],
        ],
      ]);
    expect(await evaluateAccuracy(inOnePlace, {}, setOf(batchOf([[1, 2]])))).toMatchObject({
      accuracy: 0.5,
      tokens: 2,
    });
  });

  it("refuses logits without a vocabulary axis", async () => {
    await expect(evaluateAccuracy(asLoss, {}, setOf(batchOf([[1, 2]])))).rejects.toThrow("must return [1, 2, V]");
  });
});

describe("evaluateLossBySet", () => {
  it("is the loss of each set alone and of their targets together", async () => {
    const [en, de] = [
      setOf(
        batchOf([
          [1, 2],
          [4, IGNORE_INDEX],
        ]),
      ),
      setOf(batchOf([[5, IGNORE_INDEX]])),
    ];
    const { all, sets } = await evaluateLossBySet(asLoss, {}, { en, de });
    expect(sets.en).toEqual(await evaluateLoss(asLoss, {}, en));
    expect(sets.de).toEqual({ loss: 5, standardError: Number.NaN, tokens: 1 });
    // As in the first case above: the targets count alike, whichever set they are of.
    expect(all).toEqual({ loss: 3, standardError: Math.sqrt(1.3125), tokens: 4 });
  });

  it("heeds its signal, and has nothing to say of nothing", async () => {
    const signal = AbortSignal.abort(new Error("stop"));
    await expect(evaluateLossBySet(asLoss, {}, { en: setOf(batchOf([[1]])) }, { signal })).rejects.toThrow("stop");
    expect(await evaluateLossBySet(asLoss, {}, {})).toEqual({
      all: { loss: Number.NaN, standardError: Number.NaN, tokens: 0 },
      sets: {},
    });
  });
});

describe("bitsPerByte", () => {
  it("spreads the bits of the tokens over the bytes of their text", () => {
    // 8 tokens of one bit each for a text of 4 bytes.
    expect(bitsPerByte({ loss: Math.LN2, tokens: 8 }, 4)).toBeCloseTo(2, 14);
    expect(() => bitsPerByte({ loss: 1, tokens: 1 }, 0)).toThrow("[bitsPerByte] bytes must be above 0; received 0.");
  });
});
