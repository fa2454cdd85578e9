/** Every rule that a config can name, with every option that it can give. */
import { AdamW, RoutedOptimizer } from "@llmeff/optim";
import { ones, scope, type Tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { optimizerSchema, type RuleKind } from "../config/optimizer-schema.js";
import { check, formatPath } from "../config/read-config.js";
import { buildOptimizer } from "./build-optimizer.js";

const adam = { beta1: 0.8, beta2: 0.95, eps: 1e-7 };
const tearfree = {
  momentum: 0.8,
  nesterov: false,
  ema: true,
  graft: "rmspropNorm",
  graftBeta2: 0.99,
  graftEps: 1e-20,
  startStep: 1,
  skipRank1: true,
  skipDimGt: 64,
  mergeDims: 1,
  beta2: 0.99,
  eps: 1e-5,
};

const options: Record<RuleKind, object> = {
  adamw: { ...adam, decoupled: false, amsgrad: true },
  sonew: {
    ...adam,
    band: 4,
    epsMode: "relative",
    gamma: 1e-9,
    gammaMode: "absolute",
    drop: "isolate",
    graft: "adamRaw",
    graftEps: 1e-7,
    order: "col",
    chain: "row",
    vectors: "adam",
    biasCorrection: true,
    stateDtype: "float32",
  },
  sgd: { momentum: 0.9, dampening: 0, nesterov: true, decoupled: true },
  adagrad: { eps: 1e-8, lrDecay: 1e-3, decoupled: true },
  rmsprop: { alpha: 0.9, eps: 1e-7, centered: true, momentum: 0.5, decoupled: true },
  nadamw: { ...adam, variant: "torch", momentumDecay: 4e-3, decoupled: true },
  lion: { beta1: 0.9, beta2: 0.98 },
  lamb: adam,
  adafactor: {
    beta1: 0.9,
    beta2Decay: -0.7,
    eps1: 1e-29,
    eps2: 1e-4,
    variant: "torch",
    clipThreshold: 2,
    minFactoredDim: 2,
  },
  sm3: { ...adam, ema: true },
  shampoo: { ...tearfree, ridge: "absolute", blockSize: 4, statEvery: 2, rootEvery: 2, root: "coupledNewton" },
  sketchy: {
    ...tearfree,
    relativeEps: false,
    rank: 2,
    updateEvery: 2,
    blockSize: 4,
    tailDecay: "sqrtBeta2",
    rankTol: 1e-5,
  },
  muon: {
    momentum: 0.9,
    nesterov: false,
    nsSteps: 4,
    scale: "matchRmsAdamw",
    productDType: "same",
    adamLearningRate: 1e-3,
    adamBeta1: 0.8,
    adamBeta2: 0.9,
    adamEps: 1e-9,
    adamWeightDecay: 0.1,
  },
  soap: { ...adam, preconditionFrequency: 2, maxPrecondDim: 100 },
  psgdKron: {
    momentum: 0.8,
    whiten: "momentum",
    preconditionerRate: 0.2,
    betaL: 0.8,
    damping: 1e-8,
    updateEvery: 2,
    initScale: 2,
    maxSize: 100,
    maxSkew: 2,
    clipRms: 1,
    clipMax: 5,
    seed: 3,
  },
  rfdSon: { beta1: 0.8, rank: 3, alpha: 0.5, rankTol: 1e-5 },
};

const shapes = { "embed.weight": [8, 4], "layers.0.up.weight": [6, 4], "layers.0.norm.weight": [4] };
const tensors = (value: number): Record<string, Tensor> =>
  scope(() => Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, ones(shape).mul(value)])));

function configOf(config: object) {
  const result = check(optimizerSchema, config);
  if (!result.ok) throw new Error(result.problems.map(({ path, message }) => `${formatPath(path)}: ${message}`).join());
  return result.value;
}

describe.each(Object.keys(options) as RuleKind[])("%s", (kind) => {
  const given = {
    kind,
    learningRate: 1e-2,
    schedule: { kind: "linear", warmupSteps: 2 },
    weightDecay: 0.1,
    decay: "matrices",
    maxGradNorm: 1,
    ...options[kind],
  };

  it("takes all its options and follows the schedule", async () => {
    const params = tensors(1);
    const optimizer = buildOptimizer(params, configOf(given), 10);
    const rates: number[] = [];
    for (let step = 0; step < 3; step++) {
      rates.push(optimizer.learningRate);
      optimizer.step(tensors(0.3));
    }
    expect(rates).toEqual([0.005, 0.01, 0.01]);
    for (const param of Object.values(params)) {
      const values = await param.data();
      expect(values.every((x) => Number.isFinite(x) && x !== 1)).toBe(true);
    }
    optimizer.dispose();
  });

  it("leaves embeddings and vectors to an AdamW beside it", () => {
    const config = configOf({ ...given, adamw: { learningRate: 1e-3, beta2: 0.9, weightDecay: 0 } });
    const optimizer = buildOptimizer(tensors(1), config, 10) as RoutedOptimizer<Tensor>;
    expect(optimizer).toBeInstanceOf(RoutedOptimizer);
    const [rule, rest] = optimizer.parts;
    expect(Object.keys(rule!.params)).toEqual(["layers.0.up.weight"]);
    expect(rest).toBeInstanceOf(AdamW);
    expect(Object.keys(rest!.params)).toEqual(["embed.weight", "layers.0.norm.weight"]);
    for (let step = 0; step < 2; step++) optimizer.step(tensors(0.3));
    expect([rule!.learningRate, rest!.learningRate]).toEqual([1e-2, 1e-3]);
    optimizer.dispose();
  });

  it("refuses an option of another rule", () => {
    expect(() => configOf({ ...given, zeal: 1 })).toThrow('unknown key "zeal"');
  });
});

it.each(["adamw", "nadamw"])(
  "multiplies the rates of parameters as muP has them, under the schedule: %s",
  async (kind) => {
    const schedule = { kind: "linear", warmupSteps: 2, minRatio: 0 };
    const config = configOf({ kind, learningRate: 1e-2, schedule, weightDecay: 0.1 });
    const scales = { "embed.weight": 1, "layers.0.up.weight": 0.25, "layers.0.norm.weight": 1 };
    const stepped = async (given: Record<string, number>, rate = config) => {
      const params = tensors(1);
      const optimizer = buildOptimizer(params, rate, 10, given);
      for (let step = 0; step < 5; step++) optimizer.step(tensors(0.3));
      const values = Object.entries(params).map(
        async ([name, param]) => [name, Array.from(await param.data())] as const,
      );
      optimizer.dispose();
      return Object.fromEntries(await Promise.all(values));
    };
    const [scaled, whole, quarter] = [
      await stepped(scales),
      await stepped({}),
      await stepped({}, configOf({ kind, learningRate: 0.25e-2, schedule, weightDecay: 0.1 })),
    ];
    expect(scaled["layers.0.up.weight"]).toEqual(quarter["layers.0.up.weight"]);
    for (const name of ["embed.weight", "layers.0.norm.weight"]) expect(scaled[name]).toEqual(whole[name]);
    expect(await stepped({ "embed.weight": 1 })).toEqual(whole);
  },
);

it("falls with the root of the steps after a warm-up", () => {
  const schedule = { kind: "rsqrt", warmupSteps: 4 };
  const optimizer = buildOptimizer(tensors(1), configOf({ kind: "adamw", learningRate: 0.1, schedule }), 20);
  const rates = Array.from({ length: 17 }, () => {
    const rate = optimizer.learningRate;
    optimizer.step(tensors(0.3));
    return rate;
  });
  // Up to 0.1 in four steps, then 0.1 · √(4 / (step + 1)): a half at the sixteenth.
  for (const [step, rate] of [
    [0, 0.025],
    [3, 0.1],
    [8, 0.1 * Math.sqrt(4 / 9)],
    [15, 0.05],
  ] as const)
    expect(rates[step]).toBeCloseTo(rate, 12);
  optimizer.dispose();
});

it("refuses a rule that isn't there by the nearest", () => {
  expect(() => configOf({ kind: "shampo", learningRate: 1 })).toThrow('Did you mean "shampoo"?');
});
