export type {
  Binding,
  CudaDevice,
  Handle,
  KernelTable,
  NativeInfo,
  NativeMemory,
  Operand,
  OptionalOperand,
} from "./binding.js";
export { Activation, BinaryOp, Distribution, DTypeCode, Graft, ReduceOp, UnaryOp, UpdateRule } from "./binding.js";
export * from "./errors.js";
export { engine } from "./load.js";
