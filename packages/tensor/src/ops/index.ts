export { type AttentionOptions, type AttentionPart, attention, attentionWithLse } from "./attention.js";
export {
  add,
  div,
  equal,
  greater,
  greaterEqual,
  less,
  lessEqual,
  maximum,
  minimum,
  mul,
  notEqual,
  pow,
  sub,
} from "./binary.js";
export { astype } from "./cast.js";
export { clone, detach } from "./clone.js";
export { concat } from "./concat.js";
export {
  copyInto,
  fill,
  full,
  type NestedNumbers,
  ones,
  onesLike,
  type RandomKey,
  randomNormal,
  randomUniform,
  type TensorOptions,
  tensor,
  zeros,
  zerosLike,
} from "./creation.js";
export {
  type CrossEntropyOptions,
  type CrossEntropyParts,
  crossEntropy,
  crossEntropyParts,
  linearCrossEntropy,
  linearCrossEntropyParts,
} from "./cross-entropy.js";
export { embedding } from "./embedding.js";
export { linear } from "./linear.js";
export { matmul } from "./matmul.js";
export { mergeAttention } from "./merge-attention.js";
export { globalNorm } from "./norm.js";
export { max, mean, min, type ReduceOptions, sum } from "./reduce.js";
export { type RmsNormOptions, rmsNorm } from "./rms-norm.js";
export { type RopeOptions, type RopeTableOptions, rope, ropeTables } from "./rope.js";
export {
  type Llama3Scaling,
  type RopeFrequencies,
  type RopeFrequencyOptions,
  type RopeScaling,
  ropeFrequencies,
  type YarnScaling,
} from "./rope-frequencies.js";
export { type SimplicialAttentionOptions, simplicialAttention } from "./simplicial-attention.js";
export { softmax } from "./softmax.js";
export { swiglu } from "./swiglu.js";
export {
  abs,
  cos,
  exp,
  gelu,
  isFinite,
  log,
  neg,
  reciprocal,
  relu,
  rsqrt,
  sigmoid,
  silu,
  sin,
  sqrt,
  square,
  tanh,
} from "./unary.js";
export { expand, permute, reshape, slice, transpose } from "./views.js";
export { where } from "./where.js";
