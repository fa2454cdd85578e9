/** The JSON of an optimizer: a rule of `@llmeff/optim` with its hyper-parameters, a schedule, and AdamW for what the rule is not made for. */
import { z } from "zod";
import {
  byKind,
  decayRate,
  finiteNumber,
  flag,
  nonNegativeNumber,
  object,
  oneOf,
  positiveInteger,
  positiveNumber,
  ratio,
  wholeNumber,
} from "./fields.js";

const decay = { warmupSteps: wholeNumber().optional(), minRatio: ratio().optional() };

const schedule = byKind(
  ["constant", "linear", "cosine", "wsd", "rsqrt"],
  [
    object({ kind: z.literal("constant"), warmupSteps: wholeNumber().optional() }),
    object({ kind: z.literal("linear"), ...decay }),
    object({ kind: z.literal("cosine"), ...decay }),
    object({
      kind: z.literal("wsd"),
      ...decay,
      decayFraction: ratio().optional(),
      decayShape: oneOf(["linear", "cosine", "sqrt"]).optional(),
    }),
    object({ kind: z.literal("rsqrt"), warmupSteps: wholeNumber().optional() }),
  ],
);

const moments = { beta1: decayRate().optional(), beta2: decayRate().optional(), eps: positiveNumber().optional() };
const momentum = { momentum: decayRate().optional(), nesterov: flag().optional() };
const decoupled = { decoupled: flag().optional() };

/** Of Shampoo and Sketchy. */
const tearfree = {
  ...momentum,
  ema: flag().optional(),
  graft: oneOf(["none", "rmsprop", "sgd", "rmspropNorm"]).optional(),
  graftBeta2: ratio().optional(),
  graftEps: nonNegativeNumber().optional(),
  startStep: wholeNumber().optional(),
  skipRank1: flag().optional(),
  skipDimGt: positiveInteger().optional(),
  mergeDims: positiveInteger().optional(),
  beta2: ratio().optional(),
  eps: nonNegativeNumber().optional(),
};

/** What each rule takes beside the keys of all. */
const rules = {
  adamw: { ...moments, ...decoupled, amsgrad: flag().optional() },
  sonew: {
    ...moments,
    /** 0 to 10. */
    band: wholeNumber().optional(),
    epsMode: oneOf(["absolute", "relative"]).optional(),
    gamma: nonNegativeNumber().optional(),
    gammaMode: oneOf(["relative", "absolute"]).optional(),
    drop: oneOf(["forward", "isolate"]).optional(),
    graft: oneOf(["none", "adam", "adamRaw", "sgd", "momentum", "rmspropNorm"]).optional(),
    graftEps: positiveNumber().optional(),
    order: oneOf(["row", "col"]).optional(),
    chain: oneOf(["tensor", "row"]).optional(),
    vectors: oneOf(["sonew", "adam"]).optional(),
    biasCorrection: flag().optional(),
    stateDtype: oneOf(["float32", "bfloat16"]).optional(),
  },
  sgd: { ...momentum, ...decoupled, dampening: finiteNumber().optional() },
  adagrad: { ...decoupled, eps: positiveNumber().optional(), lrDecay: nonNegativeNumber().optional() },
  rmsprop: {
    ...decoupled,
    alpha: decayRate().optional(),
    eps: positiveNumber().optional(),
    centered: flag().optional(),
    momentum: decayRate().optional(),
  },
  nadamw: {
    ...moments,
    ...decoupled,
    variant: oneOf(["algoperf", "optax", "torch"]).optional(),
    momentumDecay: nonNegativeNumber().optional(),
  },
  lion: { beta1: decayRate().optional(), beta2: decayRate().optional() },
  lamb: moments,
  adafactor: {
    beta1: decayRate().optional(),
    beta2Decay: finiteNumber().optional(),
    eps1: positiveNumber().optional(),
    eps2: positiveNumber().optional(),
    variant: oneOf(["torch", "original"]).optional(),
    clipThreshold: positiveNumber().optional(),
    minFactoredDim: positiveInteger().optional(),
  },
  sm3: { ...moments, beta2: ratio().optional(), ema: flag().optional() },
  shampoo: {
    ...tearfree,
    ridge: oneOf(["relative", "absolute"]).optional(),
    blockSize: wholeNumber().optional(),
    statEvery: positiveInteger().optional(),
    rootEvery: positiveInteger().optional(),
    root: oneOf(["eigh", "coupledNewton"]).optional(),
  },
  sketchy: {
    ...tearfree,
    relativeEps: flag().optional(),
    rank: positiveInteger().optional(),
    updateEvery: positiveInteger().optional(),
    blockSize: wholeNumber().optional(),
    tailDecay: oneOf(["beta2", "sqrtBeta2"]).optional(),
    rankTol: nonNegativeNumber().optional(),
  },
  muon: {
    ...momentum,
    nsSteps: positiveInteger().optional(),
    scale: oneOf(["original", "matchRmsAdamw", "none"]).optional(),
    productDType: oneOf(["auto", "same", "bfloat16"]).optional(),
    /** Of embeddings, head and vectors, which AdamW steps; it follows the schedule. */
    adamLearningRate: positiveNumber().optional(),
    adamBeta1: decayRate().optional(),
    adamBeta2: decayRate().optional(),
    adamEps: positiveNumber().optional(),
    adamWeightDecay: nonNegativeNumber().optional(),
  },
  soap: {
    ...moments,
    preconditionFrequency: positiveInteger().optional(),
    maxPrecondDim: positiveInteger().optional(),
  },
  psgdKron: {
    momentum: decayRate().optional(),
    whiten: oneOf(["gradient", "momentum"]).optional(),
    preconditionerRate: positiveNumber().optional(),
    betaL: decayRate().optional(),
    damping: nonNegativeNumber().optional(),
    updateEvery: positiveInteger().optional(),
    initScale: positiveNumber().optional(),
    maxSize: positiveInteger().optional(),
    maxSkew: positiveNumber().optional(),
    clipRms: positiveNumber().optional(),
    clipMax: positiveNumber().optional(),
    seed: wholeNumber().optional(),
  },
  rfdSon: {
    beta1: decayRate().optional(),
    rank: positiveInteger().optional(),
    alpha: positiveNumber().optional(),
    rankTol: nonNegativeNumber().optional(),
  },
};

export type RuleKind = keyof typeof rules;

const weightDecay = {
  weightDecay: nonNegativeNumber().optional(),
  /** `"matrices"`: no weight decay of norms. */
  decay: oneOf(["all", "matrices"]).optional(),
};

const common = {
  learningRate: positiveNumber(),
  /** Default constant. */
  schedule: schedule.optional(),
  ...weightDecay,
  maxGradNorm: positiveNumber().optional(),
};

/** AdamW for embeddings, head and vectors, with a rate of its own that follows the schedule; then the rule steps hidden matrices alone. */
const adamw = object({ learningRate: positiveNumber(), ...weightDecay, ...rules.adamw }).optional();

const kinds = Object.keys(rules) as RuleKind[];

type Options = {
  [K in RuleKind]: ReturnType<
    typeof object<{ kind: z.ZodLiteral<K> } & typeof common & { adamw: typeof adamw } & (typeof rules)[K]>
  >;
}[RuleKind];

export const optimizerSchema = byKind(
  kinds,
  kinds.map((kind) => object({ kind: z.literal(kind), ...common, adamw, ...rules[kind] })) as unknown as readonly [
    Options,
    ...Options[],
  ],
);

export type OptimizerConfig = z.infer<typeof optimizerSchema>;
