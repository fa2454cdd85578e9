import { describe, expect, it } from "vitest";
import type { Study } from "./load-study.js";
import { type PartResult, studyReport } from "./report.js";
import type { SweepResults } from "./sweep-file.js";

const curve = { tokens: [10, 20], values: [2, 1], standardErrors: [0.1, 0.1] };

/** An arm's result with each seed, of a model with these settings beside its width. */
const arm = (name: string, seeds: readonly number[], model: object = {}) => ({
  ...{ name, description: undefined, parameters: 10, activeParameters: 10, flopsPerToken: 1, tokens: 20, seconds: 1 },
  ...{ value: 1, standardError: 0.1, tokensToTarget: null, reached: 0, sample: null },
  config: { model: { dModel: 8, ...model }, data: { kind: "text", tokenizer: "byte" } },
  runs: seeds.map((seed) => ({
    ...{ seed, tokensToTarget: null, evaluations: curve, trainingLoss: curve },
    outcome: { tokens: 20, value: 1, metrics: {} },
  })),
});

function partOf(...arms: ReturnType<typeof arm>[]) {
  const seeds = arms[0]!.runs.map(({ seed }) => seed);
  const part = { ...{ name: "part", title: "Part", metric: "validationLoss", target: 0.5, seeds }, arms };
  const given = { ...part, arms: arms.map((one) => ({ ...one, learningRates: [1] })) };
  const study = { name: "study", title: "Study", description: undefined, parts: [given], file: "study.json" };
  const sweep = { study: "study", rule: "", parts: [{ name: "part", metric: "validationLoss", seeds: [1], arms: [] }] };
  const results = [{ part: given, arms }] as unknown as PartResult[];
  const { sections } = studyReport(study as unknown as Study, results, sweep as unknown as SweepResults, new Date(0));
  return sections.find(({ title }) => title === "Part")!.blocks;
}

const captions = (blocks: ReturnType<typeof partOf>) =>
  blocks.flatMap((block) => (block.kind === "lineChart" ? [block.caption] : []));

describe("studyReport", () => {
  it("tells under the training losses that those of mixtures hold what balances them", () => {
    const balanced = /^Means between two evaluations.*\. Of mixtures of experts, with the losses that balance them/;
    const mixture = arm("mixture", [1, 2], { experts: { numExperts: 4 } });
    expect(captions(partOf(arm("dense", [1, 2]), mixture))[1]).toMatch(balanced);
    expect(captions(partOf(arm("dense", [1, 2])))[1]).toMatch(/^Means between [^.]*\.$/);
    expect(captions(partOf(arm("dense", [1])))[1]).toBeUndefined();
  });

  it("has a table of the differences of several arms over several seeds", () => {
    const tables = (seeds: number[]) =>
      partOf(arm("one", seeds), arm("other", seeds)).flatMap((block) =>
        block.kind === "table" ? [block.caption] : [],
      );
    expect(tables([1, 2])).toEqual([undefined, "Final validation loss less that of one"]);
    expect(tables([1])).toEqual([undefined]);
  });
});
