import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { studyConfig, Workplace } from "../../test/harness.js";
import { mergePatch } from "../config/merge.js";
import { loadStudy } from "./load-study.js";

let place: Workplace;
beforeAll(async () => {
  place = await Workplace.create();
});
afterAll(() => place[Symbol.asyncDispose]());

interface Json {
  parts: { base: Record<string, unknown>; arms: Record<string, unknown>[] }[];
}

/** What is said about the good study after a change. */
async function complaint(change: (study: Json) => void): Promise<string> {
  const study = studyConfig() as unknown as Json;
  change(study);
  await place.write("study.json", study);
  return loadStudy(place.path("study.json")).then(
    () => "nothing",
    (error: Error) => error.message,
  );
}

describe("loadStudy", () => {
  it("merges each arm into its part's base", async () => {
    await place.write("study.json", studyConfig());
    const { parts } = await loadStudy(place.path("study.json"));
    expect(parts[1]!.arms.map(({ id, config }) => [id, config.optimizer])).toEqual([
      ["text/adamw", { kind: "adamw", learningRate: 0.003, schedule: { kind: "linear", warmupSteps: 2 } }],
      ["text/sonew", { kind: "sonew", learningRate: 0.003, schedule: { kind: "linear", warmupSteps: 2 } }],
    ]);
    expect(parts[1]!.arms[0]!.config.data).toEqual(parts[1]!.arms[1]!.config.data);
  });

  it("trains with the part's seeds, or the base's alone", async () => {
    await place.write("study.json", studyConfig());
    const { parts } = await loadStudy(place.path("study.json"));
    expect(parts.map(({ seeds, sweepSeeds }) => [seeds, sweepSeeds])).toEqual([
      [[1, 2], [0]],
      [[3], [3]],
    ]);
  });

  it.each<[string, (study: Json) => void, string]>([
    [
      "an arm's unknown key, where it stands",
      (s) => Object.assign(s.parts[1]!.arms[0]!, { optimizer: { kind: "adamw", grafft: 1 } }),
      'parts[1].arms[0].optimizer: unknown key "grafft"',
    ],
    [
      "a problem of the base once, not for every arm",
      (s) => Object.assign(s.parts[1]!, { base: mergePatch(s.parts[1]!.base, { model: { dModel: 0 } }) }),
      "a problem:\n  parts[1].base.model.dModel: expected a positive integer; received 0.",
    ],
    [
      "an arm's data but for objectives",
      (s) => Object.assign(s.parts[1]!.arms[0]!, { data: { objectives: "ul2", batchSize: 3 } }),
      'parts[1].arms[0].data: unknown key "batchSize". Known keys: objectives, modeTokens.',
    ],
    [
      "objectives of data that have none, where they stand",
      (s) => Object.assign(s.parts[1]!.arms[1]!, { data: { objectives: "ul2" } }),
      'parts[1].arms[1].data: unknown key "objectives"',
    ],
    [
      "a learning rate beside the grids",
      (s) => Object.assign(s.parts[1]!, { base: mergePatch(s.parts[1]!.base, { optimizer: { learningRate: 1 } }) }),
      "parts[1].base.optimizer.learningRate: the arms' learningRates are used; remove it.",
    ],
    [
      "grids of different size",
      (s) => Object.assign(s.parts[0]!.arms[1]!, { learningRates: [0.1] }),
      "parts[0].arms[1].learningRates: expected 2 learning rates as in the first arm",
    ],
    [
      "two arms for one folder",
      (s) => Object.assign(s.parts[0]!.arms[1]!, { name: "2 Simplicial" }),
      'parts[0].arms[1].name: the name "2 Simplicial" is taken',
    ],
    [
      "a metric of other data",
      (s) => Object.assign(s.parts[1]!, { metric: "accuracy" }),
      'parts[1].metric: text data are measured by "validationLoss"; received "accuracy".',
    ],
    [
      "a misspelt key of a part",
      (s) => Object.assign(s.parts[0]!, { tagret: 1 }),
      'parts[0]: unknown key "tagret". Did you mean "target"?',
    ],
    [
      "a seed that comes twice",
      (s) => Object.assign(s.parts[0]!, { seeds: [1, 2, 1] }),
      "parts[0].seeds: expected seeds that differ from each other; received [1,2,1].",
    ],
    [
      "a seed that is none",
      (s) => Object.assign(s.parts[0]!, { seeds: [0.5] }),
      "parts[0].seeds[0]: expected an integer of at least 0; received 0.5.",
    ],
    [
      "a base's seed beside the part's",
      (s) => Object.assign(s.parts[1]!, { seeds: [1] }),
      "parts[1].base.seed: the part's seeds are used; remove it.",
    ],
    [
      "no arms",
      (s) => Object.assign(s.parts[0]!, { arms: [] }),
      "parts[0].arms: expected a list of arms; received [].",
    ],
  ])("refuses %s", async (_, change, message) => {
    expect(await complaint(change)).toContain(message);
  });
});
