/** What the study of 2-simplicial attention trains: its tasks, its models of text, the arms with equal parameters, and all of these at three sizes. */
import { Transformer } from "@llmeff/models";
import { sourceOf } from "./two-simplicial-data.mjs";

/** Attention to pairs that begins near ordinary attention. */
const pairs = (windows) => ({ kind: "simplicial", ...windows, v2Bias: 1 });

/** The arms: which layers they have where the part's plain model has `layers` layers of dot-product attention. */
export const arms = {
  simplicial: {
    label: "2-simplicial",
    what: "the last layer attends to pairs of tokens",
    layers: (layers, windows) => [...Array(layers - 1).fill({ kind: "dot" }), pairs(windows)],
  },
  dot: {
    label: "dot-product",
    what: "all layers attend to single tokens",
    layers: (layers) => Array(layers).fill({ kind: "dot" }),
  },
  deeper: {
    label: "dot-product, deeper",
    what: "one layer more, and narrower feed-forward layers",
    layers: (layers) => Array(layers + 1).fill({ kind: "dot" }),
  },
};

/** Three-way tasks, then their two-way controls. Positions are learned, but for induction, which looks for what stood just before. */
const tasks = {
  match3: { title: "Match3", layers: 1 },
  triples: { title: "induction, a b → c", layers: 2, positions: "rotary" },
  functions2: { title: "g(f(x))", layers: 1 },
  relations: { title: "relation composition", layers: 1 },
  parity3: { title: "parity of 3 places", layers: 1 },
  functions3: { title: "h(g(f(x)))", layers: 2 },
  match2: { title: "Match2", layers: 1 },
  pairs: { title: "induction, a → b", layers: 2, positions: "rotary" },
  parity2: { title: "parity of 2 places", layers: 1 },
};

/** Tasks that the smallest size can do in seconds; the other sizes have one scale. */
const small = {
  match2: { kind: "match", count: 5, modulus: 6, terms: 2 },
  match3: { kind: "match", count: 5, modulus: 9, terms: 3 },
  parity2: { kind: "parity", bits: 4, terms: 2, questions: 2 },
  parity3: { kind: "parity", bits: 4, terms: 3, questions: 2 },
  relations: { kind: "relations", size: 2 },
  functions2: { kind: "functions", size: 3, functions: 2 },
  functions3: { kind: "functions", size: 3, functions: 3 },
  pairs: { kind: "induction", keys: 1, size: 4, values: 3, questions: 2 },
  triples: { kind: "induction", keys: 2, size: 2, values: 3, questions: 2 },
};
const usual = {
  match2: { kind: "match", count: 16, modulus: 22, terms: 2 },
  match3: { kind: "match", count: 6, modulus: 14, terms: 3 },
  parity2: { kind: "parity", bits: 8, terms: 2, questions: 16 },
  parity3: { kind: "parity", bits: 8, terms: 3, questions: 16 },
  relations: { kind: "relations", size: 4 },
  functions2: { kind: "functions", size: 6, functions: 2 },
  functions3: { kind: "functions", size: 4, functions: 3 },
  pairs: { kind: "induction", keys: 1, size: 8, values: 8, questions: 8 },
  triples: { kind: "induction", keys: 2, size: 3, values: 8, questions: 9 },
};

export const scales = {
  smoke: {
    seeds: [1, 2, 3],
    tasks: {
      ...{ scale: small, model: { dModel: 16, numHeads: 2, ffnDim: 64 } },
      ...{ batchSize: 8, steps: 6, tuneSteps: 3, warmupSteps: 2, evaluateEvery: 3, heldOut: 20, rates: [3e-3] },
    },
    text: {
      ...{ widths: { small: 8, medium: 16, large: 24 }, headDim: 4, layers: 2, windows: { w1: 8, w2: 4 } },
      ...{ seqLen: 16, batchSize: 4, steps: 6, evaluations: 2, heldOut: 8, rates: [4e-3] },
    },
  },
  cpu: {
    seeds: [1, 2, 3],
    tasks: {
      ...{ scale: usual, model: { dModel: 64, numHeads: 1, ffnDim: 192 } },
      ...{
        batchSize: 64,
        steps: 3000,
        tuneSteps: 1500,
        warmupSteps: 50,
        evaluateEvery: 25,
        heldOut: 1000,
        rates: [1e-3, 2e-3, 4e-3],
      },
    },
    text: {
      ...{ widths: { small: 32, medium: 64, large: 128 }, headDim: 16, layers: 4, windows: { w1: 32, w2: 8 } },
      ...{ seqLen: 128, batchSize: 16, steps: 600, evaluations: 12, heldOut: 256, rates: [2e-3, 4e-3, 8e-3] },
    },
  },
  gpu: {
    seeds: [1, 2, 3],
    tasks: {
      ...{ scale: usual, model: { dModel: 128, numHeads: 2, ffnDim: 256 } },
      ...{
        batchSize: 128,
        steps: 2400,
        tuneSteps: 1200,
        warmupSteps: 50,
        evaluateEvery: 25,
        heldOut: 1000,
        rates: [5e-4, 1e-3, 2e-3, 4e-3],
      },
    },
    text: {
      ...{ widths: { small: 96, medium: 192, large: 320 }, headDim: 32, layers: 4, windows: { w1: 64, w2: 16 } },
      ...{ seqLen: 256, batchSize: 32, steps: 800, evaluations: 20, heldOut: 512, rates: [5e-4, 1e-3, 2e-3, 4e-3] },
    },
  },
};

const parametersOf = (config) => new Transformer(config).parameterCount;

/**
 * `config` with feed-forward layers of the width, a multiple of 4, at which it is nearest to having so many parameters: their number grows linearly
 * with the width.
 */
export function withParameters(config, parameters) {
  const [none, one] = [4, 8].map((ffnDim) => parametersOf({ ...config, ffnDim }));
  const ffnDim = 4 + 4 * Math.round((parameters - none) / (one - none));
  if (ffnDim < 4)
    throw new Error(`[evidence] no feed-forward layer leaves ${parameters} parameters to ${JSON.stringify(config)}.`);
  return { ...config, ffnDim };
}

/** The model of each arm; the feed-forward layers of all but `dot` are made to fit its number of parameters. */
function modelsOf(names, { layers, windows, ...config }) {
  const modelOf = (name) => {
    const attention = arms[name].layers(layers, windows);
    return { ...config, attention, numLayers: attention.length, qkNorm: true };
  };
  const plain = modelOf("dot");
  const parameters = parametersOf(plain);
  return Object.fromEntries(
    names.map((name) => [name, name === "dot" ? plain : withParameters(modelOf(name), parameters)]),
  );
}

function taskParts({ scale, model, batchSize, heldOut, rates, tuneSteps, ...training }) {
  return Object.entries(tasks).map(([name, { layers, positions = "learned", ...about }]) => {
    const data = { ...scale[name], batchSize, heldOut };
    const { vocabSize, seqLen } = sourceOf(data, "train", 0);
    const sizes = { vocabSize, maxSeqLen: seqLen, positions };
    return {
      ...{
        name,
        ...about,
        data,
        seqLen,
        rates,
        tuneSteps,
        training: { ...training, stopAt: 0.95 },
        metric: "accuracy",
      },
      models: modelsOf(Object.keys(arms), { ...model, ...sizes, layers }),
    };
  });
}

/** Bytes. */
const vocabSize = 256;

function textParts(
  { widths, headDim, layers, windows, seqLen, batchSize, heldOut, rates, steps, evaluations },
  corpus,
) {
  return Object.entries(widths).map(([size, dModel]) => {
    const heads = { numHeads: dModel / headDim, ffnDim: Math.ceil((dModel * 8) / 3 / 8) * 8 };
    const config = { vocabSize, maxSeqLen: seqLen, dModel, ...heads, layers, windows };
    return {
      ...{ name: `text-${size}`, title: `text, width ${dModel}`, metric: "loss", seqLen, rates, tuneSteps: steps },
      data: { kind: "text", corpus, seqLen, batchSize, heldOut },
      training: { steps, warmupSteps: Math.ceil(steps / 20), evaluateEvery: Math.ceil(steps / evaluations) },
      models: modelsOf(["simplicial", "dot"], config),
    };
  });
}

/** The parts of the study: `{ name, title, metric, data, seqLen, rates, tuneSteps, training, models, parameters }`, the last two by arm. */
export function partsOf({ tasks, text }, corpus) {
  return [...taskParts(tasks), ...textParts(text, corpus)].map((part) => ({
    ...part,
    parameters: Object.fromEntries(Object.entries(part.models).map(([arm, model]) => [arm, parametersOf(model)])),
  }));
}

export const partNames = [...Object.keys(tasks), ...Object.keys(scales.cpu.text.widths).map((size) => `text-${size}`)];
