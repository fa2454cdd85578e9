import { Distribution, DTypeCode, DTypeError, engine, OptionError, type Scalar, ShapeError } from "@llmeff/native";
import { chosenDevice, type DeviceChoice } from "../device.js";
import { checkDType, type DType, dtypeOf, isFloating, type TypedArray } from "../dtype.js";
import {
  type HostNumber,
  isCapturing,
  ReplayedNumber,
  refuseTransfer,
  refuseUpload,
  refuseWhileCapturing,
  scalarOf,
} from "../recording.js";
import { checkShape, formatShape, maxRank, type Shape, sizeOf } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";

export interface TensorOptions {
  /** Element type; default float32, or that of the typed array. */
  dtype?: DType;
  /** Where it is made; default that of `LLMEFF_DEVICE` or `setDefaultDevice`, the CPU. */
  device?: DeviceChoice | undefined;
}

/** Numbers in arrays of equal lengths. */
export type NestedNumbers = number | readonly NestedNumbers[];

function shapeOfNested(data: NestedNumbers): number[] {
  const shape: number[] = [];
  // One axis more than the engine has is enough to be refused, whatever comes below.
  for (let level = data; Array.isArray(level) && shape.length <= maxRank; level = level[0] as NestedNumbers)
    shape.push(level.length);
  return shape;
}

function flatten(data: NestedNumbers, shape: Shape, axis: number, into: Float64Array, at: number): number {
  if (axis === shape.length) {
    if (typeof data !== "number") throw raggedError(shape);
    into[at] = data;
    return at + 1;
  }
  if (!Array.isArray(data) || data.length !== shape[axis]) throw raggedError(shape);
  let next = at;
  for (const item of data as readonly NestedNumbers[]) next = flatten(item, shape, axis + 1, into, next);
  return next;
}

function raggedError(shape: Shape): ShapeError {
  return new ShapeError(
    `[tensor] nested arrays must be rectangular: ${formatShape(shape)} by their first entries, but others differ.`,
  );
}

function isTypedArray(data: unknown): data is TypedArray {
  return ArrayBuffer.isView(data) && !(data instanceof DataView);
}

/**
 * A tensor of the given values, which are copied.
 *
 * @param data - a number, nested arrays of numbers, or a typed array in row-major order
 * @param options.shape - default: that of the nesting; one axis for a typed array
 * @param options.dtype - default: float32, or the typed array's (`Uint16Array`: name bfloat16 or float16)
 * @throws {ShapeError} if the nesting is ragged or the shape has another number of elements
 *
 * @example
 * tensor([[1, 2], [3, 4]]); // float32 [2, 2]
 * tensor(new Int32Array(6), { shape: [2, 3] }); // int32 [2, 3]
 */
export function tensor(data: NestedNumbers | TypedArray, options: TensorOptions & { shape?: Shape } = {}): Tensor {
  refuseUpload("tensor");
  if (options.dtype !== undefined) checkDType("tensor", options.dtype);
  let values: TypedArray;
  let natural: Shape;
  let sourceDType: DType;
  if (isTypedArray(data)) {
    values = data;
    natural = [data.length];
    const bits = data instanceof Uint16Array && (options.dtype === "bfloat16" || options.dtype === "float16");
    sourceDType = bits ? options.dtype! : dtypeOf(data);
  } else {
    natural = shapeOfNested(data);
    checkShape("tensor", natural);
    const flat = new Float64Array(sizeOf(natural));
    flatten(data, natural, 0, flat, 0);
    values = flat;
    sourceDType = "float64";
  }
  const shape = options.shape ?? natural;
  checkShape("tensor", shape);
  if (sizeOf(shape) !== values.length) {
    throw new ShapeError(
      `[tensor] shape ${formatShape(shape)} has ${sizeOf(shape)} elements; received ${values.length} values.`,
    );
  }
  const dtype = options.dtype ?? (isTypedArray(data) ? sourceDType : "float32");
  const out = Tensor.allocate(dtype, [...shape], chosenDevice("tensor", options.device));
  engine().upload(out.handle, values, DTypeCode[sourceDType]);
  return out;
}

function checkNumber(where: string, value: HostNumber): void {
  if (typeof value !== "number" && !(value instanceof ReplayedNumber))
    throw new OptionError(`[${where}] value must be a number; received ${typeof value}.`);
}

/** A tensor of one value everywhere; default dtype float32. */
export function full(shape: Shape, value: HostNumber, options: TensorOptions = {}): Tensor {
  checkShape("full", shape);
  const { dtype = "float32" } = options;
  checkDType("full", dtype);
  checkNumber("full", value);
  return filled(value, dtype, [...shape], chosenDevice("full", options.device));
}

/** `full` for checked arguments, on a device by its number. @internal */
export function filled(value: HostNumber, dtype: DType, shape: Shape, device?: number): Tensor {
  const out = Tensor.allocate(dtype, shape, device);
  engine().op.fill(scalarOf("full", value), out.handle);
  return out;
}

export function zeros(shape: Shape, options: TensorOptions = {}): Tensor {
  return full(shape, 0, options);
}

export function ones(shape: Shape, options: TensorOptions = {}): Tensor {
  return full(shape, 1, options);
}

/** Zeros of the shape and dtype of `x`, on its device. */
export function zerosLike(x: Tensor): Tensor {
  return filled(0, x.dtype, x.shape, x.deviceNumber);
}

/** Ones of the shape and dtype of `x`, on its device. */
export function onesLike(x: Tensor): Tensor {
  return filled(1, x.dtype, x.shape, x.deviceNumber);
}

/** Names a stream of random numbers; the same key gives the same numbers in every call, on every device. */
export interface RandomKey {
  /** Integer, shared by a whole run. */
  seed: HostNumber;
  /** Integer that tells this use from the others of the run; default 0. In a captured step it must change: `hostNumber(() => …)`. */
  stream?: HostNumber;
}

/** A key as the engine takes it. */
export interface EngineKey {
  seed: Scalar;
  stream: Scalar;
}

/** The key with its stream filled in. In a captured step a key of plain numbers, which gives the same numbers in every replay, is refused. */
export function checkKey(where: string, key: RandomKey): EngineKey {
  if (typeof key !== "object" || key === null) {
    throw new OptionError(`[${where}] key must be { seed, stream }; received ${JSON.stringify(key)}.`);
  }
  const { seed, stream = 0 } = key;
  const checkInteger = (name: string, value: number) => {
    if (Number.isSafeInteger(value)) return;
    throw new OptionError(`[${where}] ${name} must be an integer; received ${value}.`);
  };
  const parts = { seed, stream };
  for (const [name, value] of Object.entries(parts)) {
    if (value instanceof ReplayedNumber) value.check((x) => checkInteger(name, x));
    else checkInteger(name, value);
  }
  if (isCapturing() && typeof seed === "number" && typeof stream === "number") {
    refuseWhileCapturing(
      where,
      "its key would be the same in every replay, and so would its random numbers",
      "Use a key that changes: { seed, stream: hostNumber(() => step) }.",
    );
  }
  return { seed: scalarOf(where, seed), stream: scalarOf(where, stream) };
}

function random(where: "randomUniform" | "randomNormal", key: RandomKey, shape: Shape, options: TensorOptions): Tensor {
  checkShape(where, shape);
  const { seed, stream } = checkKey(where, key);
  const { dtype = "float32" } = options;
  checkDType(where, dtype);
  if (!isFloating(dtype)) throw new DTypeError(`[${where}] expected a floating-point dtype; received ${dtype}.`);
  if (dtype === "bfloat16" || dtype === "float16") {
    using wide = random(where, key, shape, { dtype: "float32", device: options.device });
    const out = Tensor.allocate(dtype, [...shape], wide.deviceNumber);
    engine().op.copy(wide.handle, out.handle);
    return out;
  }
  const out = Tensor.allocate(dtype, [...shape], chosenDevice(where, options.device));
  const distribution = where === "randomUniform" ? Distribution.uniform : Distribution.normal;
  engine().op.random(distribution, seed, stream, out.handle);
  return out;
}

/** Uniform numbers in [0, 1): Philox 4×32-10 (Salmon et al. 2011) keyed by `key`, element by element. */
export function randomUniform(key: RandomKey, shape: Shape, options: TensorOptions = {}): Tensor {
  return random("randomUniform", key, shape, options);
}

/** Standard normal numbers by Box and Muller's transform of the same generator. */
export function randomNormal(key: RandomKey, shape: Shape, options: TensorOptions = {}): Tensor {
  return random("randomNormal", key, shape, options);
}

/**
 * Copies the values of `source` (same shape; converted to the dtype) into `target`, in place. They may be views of one memory, or on two
 * devices. No gradient flows.
 */
export function copyInto(target: Tensor, source: Tensor): Tensor {
  checkTensor("copyInto", "target", target);
  checkTensor("copyInto", "source", source);
  const same = source.rank === target.rank && source.shape.every((n, axis) => n === target.shape[axis]);
  if (!same) {
    throw new ShapeError(
      `[copyInto] shapes differ: target is ${formatShape(target.shape)} and source is ${formatShape(source.shape)}.`,
    );
  }
  if (source.deviceNumber !== target.deviceNumber) {
    refuseTransfer("copyInto");
    if (source.dtype === target.dtype) engine().transfer(source.handle, target.handle);
    else {
      using converted = Tensor.allocate(target.dtype, source.shape, source.deviceNumber);
      engine().op.copy(source.handle, converted.handle);
      engine().transfer(converted.handle, target.handle);
    }
    return target;
  }
  const { op } = engine();
  if (engine().haveSharedMemory(source.handle, target.handle)) {
    using copy = Tensor.allocate(source.dtype, source.shape, source.deviceNumber);
    op.copy(source.handle, copy.handle);
    op.copy(copy.handle, target.handle);
  } else op.copy(source.handle, target.handle);
  return target;
}

/** Sets every element, in place; infinities and NaN too. */
export function fill(target: Tensor, value: HostNumber): Tensor {
  checkTensor("fill", "target", target);
  checkNumber("fill", value);
  engine().op.fill(scalarOf("fill", value), target.handle);
  return target;
}
