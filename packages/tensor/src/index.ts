export * from "@llmeff/native/errors";
export {
  type BackwardContext,
  defineOp,
  type ForwardContext,
  grad,
  type LossWithAux,
  noGrad,
  type OpDefinition,
  type ValueAndGrad,
  valueAndGrad,
} from "./autograd.js";
export { type DType, itemSize, type TypedArray } from "./dtype.js";
export * from "./ops/index.js";
export {
  decodeSafetensors,
  encodeSafetensors,
  loadSafetensors,
  type SafetensorsFile,
  saveSafetensors,
} from "./safetensors.js";
export { emptyCache, keep, type MemoryUse, memory, resetPeakMemory, scope } from "./scope.js";
export type { Shape } from "./shape.js";
export { type Device, sync, Tensor } from "./tensor.js";
export { type TensorTree, tensorsOf } from "./tree.js";
