/**
 * Every optimizer for the tests that all of them must pass: a new one is a line here.
 */
import {
  Adafactor,
  Adagrad,
  Adam,
  AdamW,
  adafactor,
  adagrad,
  adam,
  adamw,
  type GradientTransformation,
  Lamb,
  Lion,
  lamb,
  lion,
  Muon,
  muon,
  NAdamW,
  nadamw,
  type Optimizer,
  type Parameter,
  PsgdKron,
  psgdKron,
  RfdSon,
  RMSprop,
  rfdSon,
  rmsprop,
  ScheduleFreeAdamW,
  SGD,
  Shampoo,
  Sketchy,
  SM3,
  Soap,
  Sonew,
  scheduleFreeAdamw,
  sgd,
  shampoo,
  sketchy,
  sm3,
  soap,
  sonew,
} from "../src/index.js";

type Options = Record<string, unknown>;

export interface Entry {
  name: string;
  /** The class with the options of this line. */
  make<P extends Parameter>(params: Record<string, P>, options?: object): Optimizer<P>;
  /** The transform with the options of this line; `null` where the class does what no transform does. */
  transform: ((learningRate: number, options?: object) => GradientTransformation) | null;
  /** A first learning rate, for parameters and gradients of about 1. */
  rate: number;
  /** Each with one option outside its domain. */
  refused: Options[];
  /** What `weightDecay` is for. */
  decays: "all" | "matrices";
}

type Class = new (params: never, options: never) => unknown;
type Transform = (learningRate: never, options: never) => unknown;

function entry(
  name: string,
  Class: Class,
  transform: Transform | null,
  options: Options,
  rate: number,
  refused: Options[],
  decays: Entry["decays"] = "all",
): Entry {
  const Made = Class as new <P extends Parameter>(params: Record<string, P>, given: object) => Optimizer<P>;
  const made = transform as ((learningRate: number, given: object) => GradientTransformation) | null;
  return {
    name,
    make: (params, given = {}) => new Made(params, { ...options, ...given }),
    transform: made && ((learningRate, given = {}) => made(learningRate, { ...options, ...given })),
    rate,
    refused,
    decays,
  };
}

const betas = [{ beta1: 1 }, { beta1: -0.1 }, { beta2: 1 }, { beta2: Number.NaN }];
const eps = [{ eps: -1e-8 }, { eps: Number.POSITIVE_INFINITY }];
const decays = [{ weightDecay: -1 }, { decoupled: "yes" }];
const momentum = [{ momentum: 1 }, { momentum: -0.5 }];

const sgdRefused = [
  ...momentum,
  ...decays,
  { dampening: 1 },
  { nesterov: true, momentum: 0 },
  { nesterov: true, momentum: 0.9, dampening: 0.1 },
];
const adamRefused = [...betas, ...eps, ...decays, { amsgrad: 1 }];
const rmspropRefused = [{ alpha: 1 }, { alpha: -1 }, ...eps, ...momentum, ...decays, { centered: 0 }];
const nadamwRefused = [...betas, ...eps, ...decays, { variant: "keras" }, { momentumDecay: -1 }];
const sonewRefused = [...betas, { eps: 0 }, { weightDecay: -1 }, { graft: "lamb" }, { gamma: 1 }, { chain: "column" }];
const sm3Refused = [{ beta1: 1 }, { beta2: 0 }, { beta2: 1.1 }, { eps: 0 }, { ema: "no" }, { weightDecay: -1 }];
const adafactorRefused = [
  { beta2Decay: 0 },
  { eps1: 0 },
  { eps2: -1 },
  { clipThreshold: 0 },
  { beta1: 1 },
  { variant: "optax" },
  { minFactoredDim: 1.5 },
  { weightDecay: -1 },
];

const muonRefused = [{ momentum: 1 }, { nsSteps: -1 }, { scale: "big" }, { weightDecay: -1 }, { adamBeta2: 1 }];
const tearfreeRefused = [{ momentum: 1 }, { graft: "adam" }, { graftBeta2: 0 }, { startStep: -1 }, { weightDecay: -1 }];
const shampooRefused = [...tearfreeRefused, { beta2: 0 }, { eps: -1 }, { rootEvery: 0 }, { root: "svd" }, { ridge: 1 }];
const sketchyRefused = [...tearfreeRefused, { rank: 0 }, { updateEvery: 0.5 }, { tailDecay: "none" }, { rankTol: -1 }];
const soapRefused = [...betas, ...eps, { weightDecay: -1 }, { preconditionFrequency: 0 }, { maxPrecondDim: -1 }];
const psgdKronRefused = [
  { momentum: 1 },
  { whiten: "both" },
  { preconditionerRate: 1 },
  { clipRms: 0 },
  { maxSkew: -1 },
];

/** One line each. */
export const everyOptimizer: readonly Entry[] = [
  entry("SGD", SGD, sgd, {}, 0.1, sgdRefused),
  entry(
    "SGD with momentum",
    SGD,
    sgd,
    { momentum: 0.8, dampening: 0.2, weightDecay: 0.01, decoupled: true },
    0.03,
    sgdRefused,
  ),
  entry(
    "SGD with Nesterov's momentum",
    SGD,
    sgd,
    { momentum: 0.8, nesterov: true, weightDecay: 0.01 },
    0.02,
    sgdRefused,
  ),
  entry("Adagrad", Adagrad, adagrad, { lrDecay: 1e-3 }, 0.5, [{ lrDecay: -1 }, ...eps, ...decays]),
  entry("RMSprop", RMSprop, rmsprop, {}, 0.1, rmspropRefused),
  entry("RMSprop, centered", RMSprop, rmsprop, { centered: true, weightDecay: 0.01 }, 0.05, rmspropRefused),
  entry("RMSprop with momentum", RMSprop, rmsprop, { momentum: 0.8 }, 0.03, rmspropRefused),
  entry("RMSprop, centered, with momentum", RMSprop, rmsprop, { centered: true, momentum: 0.8 }, 0.02, rmspropRefused),
  entry("Adam", Adam, adam, { weightDecay: 0.01 }, 0.1, adamRefused),
  entry("AdamW", AdamW, adamw, {}, 0.1, adamRefused),
  entry("AdamW with amsgrad", AdamW, adamw, { amsgrad: true }, 0.1, adamRefused),
  entry("NAdamW", NAdamW, nadamw, {}, 0.1, nadamwRefused),
  entry("NAdamW of optax", NAdamW, nadamw, { variant: "optax" }, 0.1, nadamwRefused),
  entry("NAdamW of PyTorch", NAdamW, nadamw, { variant: "torch" }, 0.1, nadamwRefused),
  entry("Lion", Lion, lion, { weightDecay: 0.01 }, 0.05, [...betas, { weightDecay: -1 }]),
  entry(
    "Schedule-Free AdamW",
    ScheduleFreeAdamW,
    scheduleFreeAdamw,
    { warmupSteps: 3, r: 0.5, weightDecay: 0.01 },
    0.1,
    [
      { beta1: 0 },
      ...betas,
      ...eps,
      { weightDecay: -1 },
      { warmupSteps: 0.5 },
      { r: Number.NaN },
      { weightLrPower: Number.POSITIVE_INFINITY },
    ],
  ),
  entry("Lamb", Lamb, lamb, { weightDecay: 0.01 }, 0.03, [...betas, ...eps, { weightDecay: -1 }]),
  entry("Adafactor", Adafactor, adafactor, { weightDecay: 0.01 }, 0.1, adafactorRefused),
  entry("Adafactor of the authors", Adafactor, adafactor, { variant: "original", beta1: 0.9 }, 0.1, adafactorRefused),
  entry("SM3", SM3, sm3, { weightDecay: 0.01 }, 0.3, sm3Refused),
  entry("SM3 with running averages", SM3, sm3, { beta2: 0.9, ema: false }, 0.02, sm3Refused),
  entry("Sonew", Sonew, sonew, { eps: 1e-4 }, 0.1, sonewRefused),
  entry("Sonew with rmspropNorm", Sonew, sonew, { graft: "rmspropNorm", eps: 1e-4 }, 0.1, sonewRefused),
  entry(
    "Sonew col, rows, vectors by Adam",
    Sonew,
    sonew,
    { order: "col", chain: "row", vectors: "adam", eps: 1e-4 },
    0.1,
    sonewRefused,
  ),
  entry("Muon", Muon, muon, { adamLearningRate: 0.1 }, 0.1, muonRefused, "matrices"),
  entry("Shampoo", Shampoo, shampoo, { mergeDims: 2 }, 0.1, shampooRefused),
  entry("Shampoo without a graft", Shampoo, shampoo, { graft: "none", blockSize: 2, momentum: 0 }, 0.1, shampooRefused),
  entry("Shampoo by coupled Newton", Shampoo, shampoo, { mergeDims: 2, root: "coupledNewton" }, 0.1, shampooRefused),
  entry("Sketchy", Sketchy, sketchy, { mergeDims: 2, rank: 2, updateEvery: 2 }, 0.1, sketchyRefused),
  entry("Soap", Soap, soap, { preconditionFrequency: 2 }, 0.1, soapRefused),
  entry("PsgdKron", PsgdKron, psgdKron, {}, 0.05, psgdKronRefused),
  entry("RfdSon", RfdSon, rfdSon, { rank: 2 }, 8, [{ rank: 0 }, { alpha: 0 }, { beta1: 1 }, { weightDecay: -1 }]),
  entry("diagonal Sonew", Sonew, sonew, { band: 0, eps: 1e-4 }, 0.1, sonewRefused),
  entry(
    "Sonew of band 4, edges dropped on both sides",
    Sonew,
    sonew,
    { band: 4, drop: "isolate", gamma: 0.2, eps: 1e-4 },
    0.1,
    sonewRefused,
  ),
];
