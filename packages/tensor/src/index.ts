export * from "@llmeff/native/errors";
export { type AnomalyOptions, detectAnomaly } from "./anomaly.js";
export {
  type BackwardContext,
  defineOp,
  type ForwardContext,
  type OpDefinition,
  type OpResult,
  type ResultGradients,
} from "./autograd.js";
export {
  type CapturedStep,
  type CaptureStepOptions,
  captureStep,
  type InputForm,
  type InputValue,
} from "./capture-step.js";
export { type CheckpointOptions, checkpoint } from "./checkpoint.js";
export { customGrad, type GradientFor, type GradientOf } from "./custom-grad.js";
export {
  type Device,
  type DeviceChoice,
  type DeviceInfo,
  defaultDevice,
  devices,
  deviceTime,
  isDeviceChoice,
  missingGpu,
  type OpTime,
  profile,
  resolveDevice,
  setDefaultDevice,
} from "./device.js";
export { accumulationDType, type DType, isFloating, itemSize, type TypedArray } from "./dtype.js";
export { replaceDurably, syncFolder, writeDurably } from "./durable-files.js";
export { type KeepPolicy, marked } from "./kept-results.js";
export * from "./ops/index.js";
export type { GradientOptions } from "./parameter-gradients.js";
export {
  currentRecording,
  type HostNumber,
  hostCheck,
  hostEffect,
  hostNumber,
  isCapturing,
  type Recording,
  ReplayedNumber,
  refuseWhileCapturing,
  scalarOf,
} from "./recording.js";
export {
  decodeSafetensors,
  encodeSafetensors,
  loadSafetensors,
  openSafetensors,
  type SafetensorsFile,
  type SafetensorsOptions,
  type SafetensorsReader,
  saveSafetensors,
} from "./safetensors.js";
export type { StoredDType } from "./safetensors-header.js";
export { emptyCache, keep, type MemoryUse, memory, resetPeakMemory, scope } from "./scope.js";
export type { Shape } from "./shape.js";
export { noGrad } from "./tape.js";
export { sync, Tensor } from "./tensor.js";
export { type TensorTree, tensorsOf } from "./tree.js";
export { grad, type LossWithAux, type ValueAndGrad, valueAndGrad } from "./value-and-grad.js";
