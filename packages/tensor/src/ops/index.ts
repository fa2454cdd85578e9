export { elu, leakyRelu, logSigmoid } from "./activations.js";
export { type AttentionOptions, type AttentionPart, attention, attentionWithLse } from "./attention.js";
export { type BatchNormOptions, batchNorm, groupNorm } from "./batch-norm.js";
export {
  add,
  atan2,
  div,
  equal,
  floorDivide,
  greater,
  greaterEqual,
  less,
  lessEqual,
  logAddExp,
  logicalAnd,
  logicalOr,
  logicalXor,
  maximum,
  minimum,
  mul,
  notEqual,
  pow,
  remainder,
  sub,
} from "./binary.js";
export { type CachedAttentionOptions, cachedAttention, type KeptRows } from "./cached-attention.js";
export { astype } from "./cast.js";
export { clip } from "./clip.js";
export { clone, detach } from "./clone.js";
export { concat, stack } from "./concat.js";
export { type Conv1dOptions, type Conv2dOptions, conv1d, conv2d } from "./conv.js";
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
export {
  type DecodeAttentionOptions,
  type DecodeMemory,
  decodeAttention,
} from "./decode-attention.js";
export { dropout } from "./dropout.js";
export { einsum } from "./einsum.js";
export { embedding } from "./embedding.js";
export { gather, indexAdd, indexCopyInto, indexSelect, oneHot, scatterAdd } from "./gather.js";
export { gatherSum } from "./gather-sum.js";
export { groupedMatmul, groupedMatmulMany } from "./grouped-matmul.js";
export { addLayerNorm, type LayerNormOptions, layerNorm } from "./layer-norm.js";
export { likeliestInto } from "./likeliest.js";
export { cholesky, choleskySolve } from "./linalg/cholesky.js";
export { type Eigh, eigh } from "./linalg/eigh.js";
export { type Qr, qr } from "./linalg/qr.js";
export { type Svd, svd } from "./linalg/svd.js";
export { type TriangularSolveOptions, triangularSolve } from "./linalg/triangular-solve.js";
export { type LinearOptions, linear } from "./linear.js";
export { type LinearManyOptions, linearAdd, linearMany, type RmsNormOfInput } from "./linear-many.js";
export { linearWide } from "./linear-wide.js";
export { klDivergence } from "./losses/kl-divergence.js";
export type { LossOptions, LossReduction } from "./losses/reduction.js";
export { type HuberLossOptions, huberLoss, l1Loss, mseLoss } from "./losses/regression.js";
export { type SigmoidCrossEntropyOptions, sigmoidCrossEntropy } from "./losses/sigmoid-cross-entropy.js";
export { maskedFill, tril, triu } from "./masks.js";
export { matmul } from "./matmul.js";
export { mergeAttention } from "./merge-attention.js";
export { globalNorm } from "./norm.js";
export { type PadWidths, pad } from "./pad.js";
export {
  avgPool1d,
  avgPool2d,
  maxPool1d,
  maxPool2d,
  type Pool1dOptions,
  type Pool2dOptions,
} from "./pool.js";
export { type ArangeOptions, arange, eye, linspace } from "./ranges.js";
export { repeat, roll, tile } from "./rearrange.js";
export {
  all,
  any,
  logSumExp,
  max,
  mean,
  min,
  prod,
  type ReduceOptions,
  std,
  sum,
  type VarianceOptions,
  variance,
} from "./reduce.js";
export { addRmsNorm, type RmsNormOptions, rmsNorm } from "./rms-norm.js";
export { type RopeAngles, type RopeOptions, type RopeTableOptions, rope, ropeTables } from "./rope.js";
export {
  type Llama3Scaling,
  type RopeFrequencies,
  type RopeFrequencyOptions,
  type RopeScaling,
  ropeFrequencies,
  type YarnScaling,
} from "./rope-frequencies.js";
export { sampleTokensInto } from "./sample-tokens.js";
export { type SimplicialAttentionOptions, simplicialAttention } from "./simplicial-attention.js";
export { diagonal, flip, slice, split } from "./slice.js";
export { logSoftmax, type SoftmaxOptions, softmax } from "./softmax.js";
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
export { swiglu, swigluLinear } from "./swiglu.js";
export { toDevice } from "./transfer.js";
export {
  abs,
  acos,
  asin,
  atan,
  ceil,
  cos,
  cosh,
  erf,
  exp,
  expm1,
  floor,
  type GeluOptions,
  gelu,
  isFinite,
  isNaN,
  log,
  log1p,
  logicalNot,
  neg,
  reciprocal,
  relu,
  round,
  rsqrt,
  sigmoid,
  sign,
  silu,
  sin,
  sinh,
  softplus,
  sqrt,
  square,
  tan,
  tanh,
  trunc,
} from "./unary.js";
export { expand, flatten, movedim, permute, reshape, squeeze, transpose, unsqueeze } from "./views.js";
export { where } from "./where.js";
