import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IGNORE_INDEX } from "./batch.js";
import {
  corrupt,
  corruptionCounts,
  type Denoiser,
  decoderOnly,
  drawSpans,
  sentinelsNeeded,
  spansFromCuts,
} from "./denoising.js";
import { objectivePresets } from "./objectives.js";
import { Random } from "./random.js";

const denoisers = objectivePresets.ul2 as readonly Denoiser[];
const counting = (length: number) => Int32Array.from({ length }, (_, i) => i);
const sentinels = { first: 10_000, step: -1, count: 1000 };

/** The text from inputs and targets: each sentinel of the inputs gives way to what follows it in the targets. */
function restored(inputs: Int32Array, targets: Int32Array): number[] {
  return [...inputs].flatMap((id) => {
    const isSentinel = id <= sentinels.first && id > sentinels.first - sentinels.count;
    if (!isSentinel) return [id];
    return [...targets.subarray(targets.indexOf(id) + 1, targets.indexOf(id - 1))];
  });
}

describe("corruptionCounts", () => {
  it("rounds halves to the even number", () => {
    // 30 · 0.15 = 4.5 → 4 hidden tokens; 10 · 0.15 = 1.5 → 2; 6 hidden tokens in spans of 4: 1.5 → 2 spans.
    const at = (length: number, corruption: number, meanSpan: number) =>
      corruptionCounts(length, { kind: "R", corruption, meanSpan, weight: 1 });
    expect(at(30, 0.15, 3)).toEqual({ noise: 4, spans: 1 });
    expect(at(10, 0.15, 8)).toEqual({ noise: 2, spans: 1 });
    expect(at(12, 0.5, 4)).toEqual({ noise: 6, spans: 2 });
    expect(at(20, 0.5, 4)).toEqual({ noise: 10, spans: 2 });
  });

  it("hides at least one token and leaves at least one", () => {
    for (const denoiser of denoisers) {
      expect(corruptionCounts(2, denoiser)).toEqual({ noise: 1, spans: 1 });
      expect(() => corruptionCounts(1, denoiser)).toThrow(OptionError);
    }
  });

  it("needs 214 sentinels for short spans at half corruption of 1280 tokens", () => {
    expect(corruptionCounts(1280, denoisers[3]!).spans + 1).toBe(214);
  });
});

describe("sentinelsNeeded", () => {
  it("is enough for every shorter sequence, and none too many", () => {
    const objectives = fc.constantFrom(...Object.values(objectivePresets));
    fc.assert(
      fc.property(objectives, fc.integer({ min: 2, max: 400 }), (mixture, length) => {
        const spans = (mixture as readonly Denoiser[])
          .filter((objective) => "corruption" in objective)
          .flatMap((denoiser) => Array.from({ length: length - 1 }, (_, i) => corruptionCounts(i + 2, denoiser).spans));
        expect(sentinelsNeeded(mixture, length)).toBe(spans.length === 0 ? 0 : Math.max(...spans) + 1);
      }),
    );
  });
});

describe("drawSpans", () => {
  it("draws every way to cut alike", () => {
    // 6 tokens, 3 hidden in 2 spans: hidden 1+2 or 2+1, kept 1+2 or 2+1.
    const random = new Random(5, "test");
    const seen = new Map<string, number>();
    for (let i = 0; i < 4000; i++) {
      const key = JSON.stringify(drawSpans(6, { noise: 3, spans: 2 }, random));
      seen.set(key, (seen.get(key) ?? 0) + 1);
    }
    expect([...seen.keys()].sort()).toEqual(["[[1,1],[4,2]]", "[[1,2],[5,1]]", "[[2,1],[4,2]]", "[[2,2],[5,1]]"]);
    // 1000 each with a deviation of √(4000 · ¼ · ¾) = 27.
    for (const count of seen.values()) expect(Math.abs(count - 1000)).toBeLessThan(4 * 27);
  });

  it("begins with a kept token, ends with a hidden one, and leaves one between spans", () => {
    const input = fc.record({ length: fc.integer({ min: 2, max: 300 }), which: fc.nat(6), seed: fc.nat() });
    fc.assert(
      fc.property(input, ({ length, which, seed }) => {
        const counts = corruptionCounts(length, denoisers[which]!);
        const spans = drawSpans(length, counts, new Random(seed, "test"));
        expect(spans).toHaveLength(counts.spans);
        expect(spans.reduce((sum, [, hidden]) => sum + hidden, 0)).toBe(counts.noise);
        let end = 0;
        for (const [start, hidden] of spans) {
          expect(start).toBeGreaterThan(end);
          expect(hidden).toBeGreaterThan(0);
          end = start + hidden;
        }
        expect(end).toBe(length);
      }),
    );
  });
});

describe("corrupt", () => {
  it("can be undone from inputs and targets", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 300 }), fc.nat(6), fc.nat(), (length, which, seed) => {
        const spans = drawSpans(length, corruptionCounts(length, denoisers[which]!), new Random(seed, "test"));
        const { inputs, targets } = corrupt(counting(length), spans, { sentinels });
        expect(restored(inputs, targets)).toEqual([...counting(length)]);
      }),
    );
  });

  it("counts sentinels downwards from the first, or as told", () => {
    const { inputs, targets } = corrupt(counting(6), spansFromCuts(6, 3, [1], [1]), {
      sentinels: { first: 100, step: 1, count: 3 },
      mode: 7,
      eos: 8,
    });
    expect([...inputs]).toEqual([7, 0, 100, 2, 3, 101]);
    expect([...targets]).toEqual([100, 1, 101, 4, 5, 102, 8]);
  });

  it("refuses too few sentinels, naming both numbers", () => {
    expect(() => corrupt(counting(6), [[1, 1]], { sentinels: { first: 9, count: 1 } })).toThrow(
      "[corrupt] 1 spans need 2 sentinels; there are 1. Give more, or limit the spans.",
    );
  });
});

describe("long contexts", () => {
  it("are corrupted and joined whole", () => {
    const document = counting(300_000);
    const { inputs, targets } = corrupt(document, [[150_000, 150_000]], {
      sentinels: { first: -1, count: 2 },
      eos: -3,
    });
    expect([inputs.length, targets.length]).toEqual([150_001, 150_003]);
    expect([inputs.at(-1), targets[0], targets.at(-3)]).toEqual([-1, -1, 299_999]);
    expect(decoderOnly(inputs, targets, { bos: 7 }).tokens).toHaveLength(300_005);
  });
});

describe("decoderOnly", () => {
  const [inputs, targets] = [Int32Array.of(5, 6), Int32Array.of(7, 8)];

  it("predicts the targets alone, from the last token of the inputs on", () => {
    const example = decoderOnly(inputs, targets, { bos: 1 });
    expect([...example.tokens]).toEqual([1, 5, 6, 7, 8]);
    expect([...example.targets]).toEqual([IGNORE_INDEX, IGNORE_INDEX, 7, 8, IGNORE_INDEX]);
    expect(example.prefixLength).toBe(3);
  });

  it("predicts all on request", () => {
    expect([...decoderOnly(inputs, targets, { lossOnInputs: true }).targets]).toEqual([6, 7, 8, IGNORE_INDEX]);
  });

  it("predicts all that follows the first token where there are no inputs", () => {
    const example = decoderOnly(new Int32Array(0), targets);
    expect([...example.targets]).toEqual([8, IGNORE_INDEX]);
    expect(example.prefixLength).toBe(0);
  });
});
