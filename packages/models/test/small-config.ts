import type { TransformerConfig } from "../src/index.js";

/** A model that computes in no time, whose scores differ enough to tell texts apart. */
export const smallConfig: TransformerConfig = {
  vocabSize: 11,
  dModel: 16,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  maxSeqLen: 64,
  ffnDim: 24,
  initStd: 0.4,
};
