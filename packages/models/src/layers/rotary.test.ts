import { captureStep, concat, memory, scope, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { KvCache } from "../cache.js";
import type { TransformerConfig } from "../config.js";
import { Transformer } from "../transformer.js";

const small: TransformerConfig = { vocabSize: 7, dModel: 8, numLayers: 1, numHeads: 2, maxSeqLen: 4000 };
const ids = (length: number) =>
  tensor(
    Int32Array.from({ length }, (_, i) => (5 * i) % 7),
    { shape: [1, length] },
  );

/** Rotary scaling has no parameters, so that these fit all. */
const params = new Transformer(small).init(1);

/** Scores after the last position of a sequence of this length. */
function scores(model: Transformer, length: number): number[] {
  return scope(() => [...model.lastLogits(params, ids(length)).dataSync()]);
}

describe("RotaryTables", () => {
  it.each<[string, TransformerConfig]>([
    ["unscaled", small],
    ["YaRN", { ...small, ropeScaling: { type: "yarn", factor: 4, originalLength: 1000 } }],
    ["dynamic", { ...small, ropeScaling: { type: "dynamic", factor: 4, originalLength: 1500 } }],
  ])("gives the same bits whether they grew with the sequences or were made at once: %s", (_, config) => {
    const lengths = [3, 1024, 1025, 2600, 40, 4000];
    const grown = new Transformer(config);
    for (const length of lengths) expect(scores(grown, length)).toEqual(scores(new Transformer(config), length));
  });

  it("take memory as sequences need it, whatever the model is prepared for, and give it back", () => {
    const model = new Transformer({ ...small, maxSeqLen: 2 ** 40 });
    scores(model, 1); // what the engine makes once
    model.dispose();
    const before = memory().liveBytes;
    const bytesAfter = (length: number) => {
      scores(model, length);
      return memory().liveBytes - before;
    };
    // Two tables of two frequencies in float32.
    const bytes = (positions: number) => 2 * positions * 2 * 4;
    expect(bytesAfter(5)).toBe(bytes(1024));
    expect(bytesAfter(1000)).toBe(bytes(1024));
    expect(bytesAfter(1030)).toBe(bytes(1024 + 2048));
    expect(bytesAfter(7)).toBe(bytes(1024 + 2048));
    expect(bytesAfter(8192)).toBe(bytes(1024 + 2048 + 8192));
    model.dispose();
    expect(memory().liveBytes).toBe(before);
  });

  it("reach as far as the longest sequence of a pass, wherever it stands", () => {
    const lengths = [3, 1500, 2];
    const model = new Transformer(small);
    const together = scope(() => {
      const parts = lengths.map((length) => ({ cache: new KvCache(model.config), length }));
      const tokens = concat(lengths.map(ids), 1);
      return [...model.lastLogits(params, tokens, parts).dataSync()];
    });
    const alone = lengths.flatMap((length) => scores(model, length));
    for (const [i, score] of together.entries()) expect(score).toBeCloseTo(alone[i]!, 5);
    model.dispose();
  });

  it("stay where a captured step reads them", () => {
    const model = new Transformer(small);
    using step = captureStep(({ tokens }) => model.lastLogits(params, tokens), {
      inputs: { tokens: { shape: [1, 20], dtype: "int32" } },
    });
    const run = () => scope(() => [...step({ tokens: ids(20) }).dataSync()]);
    const first = run();
    for (let i = 0; i < 3; i++) expect(run()).toEqual(first);
    expect(step.mode).toBe("captured");
    scores(model, 3000);
    expect(run()).toEqual(first);
  });
});
