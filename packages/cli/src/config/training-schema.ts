/** The JSON of a training run: model, data, optimizer, length. */
import { recomputeChoices } from "@llmeff/models";
import { z } from "zod";
import { checkData, dataSchema, metricOf, seqLenOf } from "./data-schema.js";
import {
  byKind,
  decayRate,
  deviceChoice,
  finiteNumber,
  flag,
  flagOrOneOf,
  folderName,
  list,
  nonNegativeNumber,
  object,
  oneOf,
  positiveInteger,
  positiveNumber,
  powerOfTwo,
  show,
  wholeNumber,
} from "./fields.js";
import { optimizerSchema } from "./optimizer-schema.js";

const layer = byKind(
  ["dot", "simplicial"],
  [
    object({
      kind: z.literal("dot"),
      window: positiveInteger().optional(),
      rope: flag().optional(),
      scaleFrom: positiveInteger().optional(),
    }),
    object({
      kind: z.literal("simplicial"),
      w1: positiveInteger().optional(),
      w2: positiveInteger().optional(),
      numKvHeads: positiveInteger().optional(),
      form: oneOf(["trilinear", "determinant"]).optional(),
      k2Bias: finiteNumber().optional(),
      v2Bias: finiteNumber().optional(),
      rope: flag().optional(),
    }),
  ],
);

const ropeScaling = object({
  type: oneOf(["linear", "ntk", "dynamic", "yarn", "llama3"]),
  factor: positiveNumber(),
  originalLength: positiveInteger().optional(),
  betaFast: positiveNumber().optional(),
  betaSlow: positiveNumber().optional(),
  attentionFactor: positiveNumber().optional(),
  mscale: positiveNumber().optional(),
  mscaleAllDim: positiveNumber().optional(),
  truncate: flag().optional(),
  lowFrequencyFactor: positiveNumber().optional(),
  highFrequencyFactor: positiveNumber().optional(),
});

/** `MixtureOfExperts` */
const experts = object({
  numExperts: positiveInteger(),
  topK: positiveInteger().optional(),
  expertDim: positiveInteger().optional(),
  sharedDim: wholeNumber().optional(),
  denseLayers: wholeNumber().optional(),
  choice: oneOf(["token", "expert"]).optional(),
  score: oneOf(["softmax", "sigmoid"]).optional(),
  normTopK: flag().optional(),
  routedScale: positiveNumber().optional(),
  groups: object({ count: positiveInteger(), kept: positiveInteger() }).optional(),
  capacityFactor: positiveNumber().optional(),
  auxCoef: nonNegativeNumber().optional(),
  zCoef: nonNegativeNumber().optional(),
  jitter: decayRate().optional(),
  routerBias: flag().optional(),
});

/** `TransformerConfig` without the vocabulary's size, which the data decide. */
const model = object({
  dModel: positiveInteger(),
  numLayers: positiveInteger(),
  numHeads: positiveInteger(),
  numKvHeads: positiveInteger().optional(),
  headDim: positiveInteger().optional(),
  ffnDim: positiveInteger().optional(),
  /** Default: the data's `seqLen`. Longer, if text of more than `seqLen` tokens is to be generated. */
  maxSeqLen: positiveInteger().optional(),
  attention: list(layer, "attention layers").optional(),
  qkNorm: flag().optional(),
  attentionScale: positiveNumber().optional(),
  attentionSoftcap: nonNegativeNumber().optional(),
  attentionBias: oneOf(["none", "qkv", "all"]).optional(),
  finalSoftcap: nonNegativeNumber().optional(),
  feedForward: oneOf(["swiglu", "geglu", "gelu", "geluErf", "relu2"]).optional(),
  feedForwardBias: flag().optional(),
  experts: experts.optional(),
  norm: oneOf(["rms", "layer"]).optional(),
  normPlusOne: flag().optional(),
  normEps: nonNegativeNumber().optional(),
  block: oneOf(["pre", "sandwich", "parallel", "post"]).optional(),
  positions: oneOf(["rotary", "learned"]).optional(),
  ropeBase: positiveNumber().optional(),
  ropeScaling: ropeScaling.optional(),
  rotaryDim: wholeNumber().optional(),
  ropeInterleaved: flag().optional(),
  tieEmbeddings: flag().optional(),
  embeddingScale: positiveNumber().optional(),
  initStd: nonNegativeNumber().optional(),
  zeroInitResidual: flag().optional(),
  mup: object({ baseWidth: positiveInteger() }).optional(),
});

/** Rules whose rates muP is made for. */
const mupRules: readonly string[] = ["adamw", "nadamw"];

/** `LossScaleOptions` of the training loop. */
const lossScale = object({
  initialScale: powerOfTwo("from 1 to 2^64", (x) => x >= 1 && x <= 2 ** 64).optional(),
  growthFactor: powerOfTwo("above 1", (x) => x > 1).optional(),
  backoffFactor: powerOfTwo("below 1", (x) => x < 1).optional(),
  growthInterval: positiveInteger().optional(),
});

const training = object({
  steps: positiveInteger(),
  /** Steps between evaluations; default a tenth of all. */
  evaluateEvery: positiveInteger().optional(),
  /** Sequences of each held-out set that an evaluation reads; default 100. */
  evaluateWindows: positiveInteger().optional(),
  gradientAccumulation: positiveInteger().optional(),
  /** Coefficient of the mean squared log-sum-exp of the logits; default 0. */
  zLoss: nonNegativeNumber().optional(),
  /** Weight of the uniform distribution in the targets; default 0. */
  labelSmoothing: decayRate().optional(),
  /** Evaluate and keep a running average of the weights, with this share of the old average in the new one; default none. */
  averageDecay: decayRate().optional(),
  /** Step of the routers' biases, of `model.experts.routerBias`; default 0.001. */
  routerBiasRate: positiveNumber().optional(),
  /** Keep less of each block for the backward pass, which computes it again: less memory, more time; `true` is `"block"`. Default false. */
  recompute: flagOrOneOf(recomputeChoices).optional(),
  /** How the losses of float16 parameters are scaled. */
  lossScale: lossScale.optional(),
  /** Replay captured steps where a GPU would wait; default false. */
  captureStep: flag().optional(),
  /** Operations that the device can do in a second, for the utilization; default that of a known GPU in bfloat16. */
  peakFlops: positiveNumber().optional(),
  /** Steps between checkpoints; default a tenth of all. */
  checkpointEvery: positiveInteger().optional(),
  /** Checkpoints kept; default 2. */
  keepLast: positiveInteger().optional(),
  /** Keep the checkpoint of the best evaluation too, however old it is; default false. */
  keepBest: flag().optional(),
  /** Ends the run at the first evaluation that reaches the value. */
  stopAt: object({ metric: oneOf(["validationLoss", "accuracy"]), value: finiteNumber() }).optional(),
});

/** What a model can be trained in. */
export const trainingDTypes = ["float32", "bfloat16", "float16"] as const;
export type TrainingDType = (typeof trainingDTypes)[number];

export const trainingSchema = object({
  name: folderName(),
  /** Of the initial weights, and of the batches unless `data.seed` is given; default 0. */
  seed: wholeNumber().optional(),
  /** Where the model runs; default what `LLMEFF_DEVICE` says, else the CPU. */
  device: deviceChoice().optional(),
  /** Of parameters and activations; the optimizer keeps float32 masters of 16-bit parameters. Default float32. */
  dtype: oneOf(trainingDTypes).optional(),
  model,
  data: dataSchema,
  optimizer: optimizerSchema,
  training,
}).superRefine((config, context) => {
  const problem = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message });
  const { data, training, model, optimizer } = config;
  checkData(data, (path, message) => problem(["data", ...path], message));
  const metric = metricOf(data);
  if (training.stopAt !== undefined && training.stopAt.metric !== metric) {
    problem(
      ["training", "stopAt", "metric"],
      `${data.kind} data are measured by "${metric}"; received ${show(training.stopAt.metric)}.`,
    );
  }
  if (model.maxSeqLen !== undefined && model.maxSeqLen < seqLenOf(data)) {
    problem(
      ["model", "maxSeqLen"],
      `expected at least the data's ${seqLenOf(data)} positions; received ${model.maxSeqLen}.`,
    );
  }
  for (const [i, layer] of (data.kind === "documents" ? (model.attention ?? []) : []).entries()) {
    const key = layer.kind === "simplicial" ? "kind" : layer.scaleFrom === undefined ? undefined : "scaleFrom";
    if (key !== undefined) {
      problem(
        ["model", "attention", i, key],
        "documents are kept apart by masks, which 2-simplicial layers and scaleFrom don't go with. Take data of another kind, or leave it out.",
      );
    }
  }
  if (model.mup !== undefined && !mupRules.includes(optimizer.kind)) {
    problem(["model", "mup"], `muP's rates are those of ${mupRules.join(" and ")}; received ${show(optimizer.kind)}.`);
  }
  if (model.mup !== undefined && optimizer.adamw !== undefined) {
    problem(["optimizer", "adamw"], "expected one rule for all parameters with model.mup; received a second.");
  }
  if (training.routerBiasRate !== undefined && !model.experts?.routerBias) {
    problem(["training", "routerBiasRate"], "expected model.experts.routerBias, whose biases it steps.");
  }
  const warmupSteps = optimizer.schedule?.warmupSteps ?? 0;
  if (warmupSteps > training.steps) {
    problem(
      ["optimizer", "schedule", "warmupSteps"],
      `expected at most training.steps (${training.steps}); received ${warmupSteps}.`,
    );
  }
});

export type TrainingConfig = z.infer<typeof trainingSchema>;
