export { type AttentionOptions, attention } from "./attention.js";
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
export { concat, stack } from "./concat.js";
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
export { type CumsumOptions, cumsum } from "./cumsum.js";
export { einsum } from "./einsum.js";
export { embedding } from "./embedding.js";
export { gather, indexAdd, indexSelect, oneHot, scatterAdd } from "./gather.js";
export { linear } from "./linear.js";
export { maskedFill, tril, triu } from "./masks.js";
export { matmul } from "./matmul.js";
export { globalNorm } from "./norm.js";
export { type PadWidths, pad } from "./pad.js";
export { type ArangeOptions, arange, eye, linspace } from "./ranges.js";
export { repeat, roll, tile } from "./rearrange.js";
export { max, mean, min, type ReduceOptions, sum } from "./reduce.js";
export { type RmsNormOptions, rmsNorm } from "./rms-norm.js";
export { type RopeOptions, type RopeTableOptions, rope, ropeTables } from "./rope.js";
export { type SimplicialAttentionOptions, simplicialAttention } from "./simplicial-attention.js";
export { diagonal, flip, slice, split } from "./slice.js";
export { softmax } from "./softmax.js";
export {
  type ArgReduceOptions,
  argMax,
  argMin,
  argsort,
  type Sorted,
  type SortOptions,
  sort,
  type TopKOptions,
  topK,
} from "./sort.js";
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
export { expand, flatten, movedim, permute, reshape, squeeze, transpose, unsqueeze } from "./views.js";
export { where } from "./where.js";
