export { elu, leakyRelu, logSigmoid } from "./activations.js";
export { type AttentionOptions, attention } from "./attention.js";
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
export { astype } from "./cast.js";
export { clip } from "./clip.js";
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
export { dropout } from "./dropout.js";
export { embedding } from "./embedding.js";
export { linear } from "./linear.js";
export { klDivergence } from "./losses/kl-divergence.js";
export type { LossOptions, LossReduction } from "./losses/reduction.js";
export { type HuberLossOptions, huberLoss, l1Loss, mseLoss } from "./losses/regression.js";
export { type SigmoidCrossEntropyOptions, sigmoidCrossEntropy } from "./losses/sigmoid-cross-entropy.js";
export { matmul } from "./matmul.js";
export { globalNorm } from "./norm.js";
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
export { type RmsNormOptions, rmsNorm } from "./rms-norm.js";
export { type RopeOptions, type RopeTableOptions, rope, ropeTables } from "./rope.js";
export { type SimplicialAttentionOptions, simplicialAttention } from "./simplicial-attention.js";
export { logSoftmax, type SoftmaxOptions, softmax } from "./softmax.js";
export { swiglu } from "./swiglu.js";
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
export { expand, permute, reshape, slice, transpose } from "./views.js";
export { where } from "./where.js";
