import { describe, expect, it } from "vitest";
import { textConfig } from "../../test/harness.js";
import { mergePatch } from "./merge.js";
import { check, formatPath } from "./read-config.js";
import { trainingSchema } from "./training-schema.js";

/** All problems of the good config after a patch, as they are printed. */
function problems(patch: object): string[] {
  const result = check(trainingSchema, mergePatch(textConfig(), patch));
  return result.ok ? [] : result.problems.map(({ path, message }) => `${formatPath(path)}: ${message}`);
}

describe("trainingSchema", () => {
  it("takes a good config as it is", () => {
    expect(check(trainingSchema, textConfig())).toEqual({ ok: true, value: textConfig() });
  });

  it.each<[string, object, RegExp]>([
    ["a misspelt key", { model: { dModle: 3 } }, /^model: unknown key "dModle"\. Did you mean "dModel"\?$/],
    [
      "a key of nothing alike",
      { zebra: 1 },
      /^\(top level\): unknown key "zebra"\. Known keys: name, seed, device, dtype, model/,
    ],
    [
      "a text for a number",
      { model: { dModel: "64" } },
      /^model\.dModel: expected a positive integer; received "64"\.$/,
    ],
    [
      "a fraction of a layer",
      { model: { numLayers: 1.5 } },
      /^model\.numLayers: expected a positive integer; received 1\.5\.$/,
    ],
    [
      "window 0",
      { model: { attention: [{ kind: "dot", window: 0 }] } },
      /^model\.attention\[0\]\.window: expected a positive integer; received 0\.$/,
    ],
    [
      "no layers",
      { model: { attention: [] } },
      /^model\.attention: expected a list of attention layers; received \[\]\.$/,
    ],
    [
      "a misspelt kind",
      { model: { attention: [{ kind: "simplical" }] } },
      /^model\.attention\[0\]\.kind: expected one of "dot", "simplicial"; received "simplical"\. Did you mean "simplicial"\?$/,
    ],
    ["a missing part", { data: null }, /^data: expected an object with "kind"; received nothing\.$/],
    [
      "a missing number",
      { training: { steps: null } },
      /^training\.steps: expected a positive integer; received nothing\.$/,
    ],
    [
      "an optimizer's option for another",
      { optimizer: { kind: "adamw", graft: "adam" } },
      /^optimizer: unknown key "graft"\./,
    ],
    ["beta 1", { optimizer: { beta1: 1 } }, /^optimizer\.beta1: expected a number in \[0, 1\); received 1\.$/],
    [
      "no learning rate",
      { optimizer: { learningRate: 0 } },
      /^optimizer\.learningRate: expected a positive number; received 0\.$/,
    ],
    [
      "a dtype that isn't for training",
      { dtype: "float61" },
      /^dtype: expected one of "float32", "bfloat16", "float16"; received "float61"\. Did you mean "float16"\?$/,
    ],
    [
      "a loss scale that is no power of two",
      { training: { lossScale: { initialScale: 1000 } } },
      /^training\.lossScale\.initialScale: expected a power of two from 1 to 2\^64; received 1000\.$/,
    ],
    [
      "a loss scale of no digits left",
      { training: { lossScale: { initialScale: 2 ** 65 } } },
      /^training\.lossScale\.initialScale: expected a power of two from 1 to 2\^64; received 36893488147419103000\.$/,
    ],
    [
      "a loss scale that shrinks where it should grow",
      { training: { lossScale: { growthFactor: 0.5 } } },
      /^training\.lossScale\.growthFactor: expected a power of two above 1; received 0\.5\.$/,
    ],
    [
      "a loss scale that never falls",
      { training: { lossScale: { backoffFactor: 1 } } },
      /^training\.lossScale\.backoffFactor: expected a power of two below 1; received 1\.$/,
    ],
    [
      "what can't be computed again",
      { training: { recompute: "blocks" } },
      /^training\.recompute: expected true, false or one of "block", "selective", "activations"; received "blocks"\. Did you mean "block"\?$/,
    ],
    ["a name that leaves the folder", { name: "../up" }, /^name: expected a name of letters/],
    [
      "another metric than the data's",
      { training: { stopAt: { metric: "accuracy", value: 1 } } },
      /^training\.stopAt\.metric: text data are measured by "validationLoss"; received "accuracy"\.$/,
    ],
    [
      "too few positions",
      { model: { maxSeqLen: 8 } },
      /^model\.maxSeqLen: expected at least the data's 16 positions; received 8\.$/,
    ],
    [
      "a warm-up longer than the run",
      { optimizer: { schedule: { warmupSteps: 99 } } },
      /^optimizer\.schedule\.warmupSteps: expected at most training\.steps \(12\); received 99\.$/,
    ],
    [
      "muP for a rule that isn't Adam's",
      { model: { mup: { baseWidth: 8 } } },
      /^model\.mup: muP's rates are those of adamw and nadamw; received "sonew"\.$/,
    ],
    [
      "muP for two rules",
      { model: { mup: { baseWidth: 8 } }, optimizer: { kind: "adamw", adamw: { learningRate: 1 } } },
      /^optimizer\.adamw: expected one rule for all parameters with model\.mup; received a second\.$/,
    ],
    [
      "a rate of biases that aren't there",
      { training: { routerBiasRate: 0.01 } },
      /^training\.routerBiasRate: expected model\.experts\.routerBias, whose biases it steps\.$/,
    ],
    [
      "jitter of nothing",
      { model: { experts: { numExperts: 4, jitter: -1 } } },
      /^model\.experts\.jitter: expected a number in \[0, 1\); received -1\.$/,
    ],
  ])("says what is wrong with %s", (_, patch, message) => {
    const found = problems(patch);
    expect(found.join("\n")).toMatch(message);
    expect(found).toHaveLength(1);
  });

  it("lists all problems at once", () => {
    const found = problems({ seed: -1, model: { dModel: 0, nmHeads: 2 }, training: { step: 3 } });
    expect(found).toHaveLength(4);
  });
});
