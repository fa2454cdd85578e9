/**
 * The two kinds of memory that the optimizers step: tensors of the engine and plain typed arrays, behind one interface.
 */
import { DeviceError, DTypeError, engine, type Operand, OptionError } from "@llmeff/native";
import {
  accumulationDType,
  add,
  astype,
  copyInto,
  type Device,
  type DType,
  detach,
  div,
  globalNorm,
  isFloating,
  itemSize,
  keep,
  minimum,
  mul,
  permute,
  scope,
  Tensor,
  tensor,
  zeros,
} from "@llmeff/tensor";
import { requireApart } from "./apart.js";
import { checkStateDtype, type StateDtype } from "./sonew-options.js";

/**
 * What the optimizers can step: a floating-point tensor, or a typed array that is changed in place. Of bfloat16 and float16 tensors the
 * optimizer keeps float32 masters, which are what it steps; the tensors are their roundings.
 */
export type Parameter = Tensor | Float32Array | Float64Array;

/** The dtypes of optimizer state. */
export type FloatDType = "float32" | "float64";

export interface Storage<P extends Parameter> {
  readonly dtype: FloatDType;
  operand(array: P): Operand;
  /** A float32 copy of a parameter in bfloat16 or float16, which belongs to the caller; undefined for others. */
  master(param: P): P | undefined;
  /** Refuses state of a dtype that doesn't go with these parameters. */
  checkStateDtype(where: string, dtype: StateDtype): void;
  /** A new array of zeros, of a dtype that has been checked, that belongs to the caller. */
  zeros(shape: readonly number[], dtype: StateDtype): P;
  /** Contiguous values of a gradient; a temporary of `run` if a copy is needed. */
  contiguous(array: P): P;
  assign(target: P, source: P): void;
  /** A copy with all axes in reverse order; a temporary of `run`. */
  reversed(array: P, shape: readonly number[]): P;
  /** Undoes `reversed` into `target`, which has `shape`. */
  assignReversed(target: P, source: P, shape: readonly number[]): void;
  /** The same memory under a name that belongs to the caller. */
  alias(array: P): P;
  /** A number as `globalNorm` gives one; a temporary of `run`. */
  scalar(value: number): P;
  /** The global norm of the gradients; a temporary of `run`. */
  globalNorm(grads: readonly P[]): P;
  /** `min(1, maxNorm / (norm + 1e-6))`, or NaN where the norm is not finite; a temporary of `run`. */
  clipScale(norm: P, maxNorm: number): P;
  /** The array as a tensor of that shape: itself, or a copy that is a temporary of `run`. */
  tensor(array: P, shape: readonly number[], dtype: DType): Tensor;
  /** A copy of a tensor that belongs to the caller. */
  own(tensor: Tensor): P;
  /** Waits for the values of `source` where they must be waited for, and returns what writes them to `target`, which may be narrower. */
  writer(target: P, source: Tensor): () => void;
  /** A float64 counter. */
  counter(): Tensor | Float64Array;
  read(array: Parameter): Promise<number>;
  dispose(array: Parameter): void;
  /** Runs a step; what is made inside as a temporary is freed at its end. */
  run(step: () => void): void;
}

function isParameter(value: unknown): value is Parameter {
  return value instanceof Tensor || value instanceof Float32Array || value instanceof Float64Array;
}

/** Refuses what isn't a record by parameters' names. A `Map` has no entries as a record, so that nothing of it would be seen. */
export function requireNamed(where: string, what: string, value: unknown): void {
  const isOther = value instanceof Tensor || value instanceof Map || ArrayBuffer.isView(value);
  if (typeof value === "object" && value !== null && !isOther) return;
  throw new OptionError(`[${where}] expected ${what} by name, { weight: … }; received ${describe(value)}.`);
}

/** The storage of a set of named parameters, which must all be tensors of one dtype or typed arrays of one type. */
export function storageOf<P extends Parameter>(where: string, params: Readonly<Record<string, P>>): Storage<P> {
  requireNamed(where, "parameters", params);
  const entries = Object.entries(params);
  if (entries.length === 0)
    throw new OptionError(`[${where}] expected at least one parameter; received an empty record.`);
  for (const [name, value] of entries) {
    if (!isParameter(value)) {
      throw new OptionError(
        `[${where}] parameter "${name}" must be a Tensor, Float32Array or Float64Array; received ${describe(value)}.`,
      );
    }
  }
  const kinds = new Set(entries.map(([, value]) => describe(value)));
  if (kinds.size > 1) {
    throw new DTypeError(
      `[${where}] all parameters of an optimizer must be of one kind; received ${[...kinds].join(" and ")}. Make one optimizer for each.`,
    );
  }
  requireApart(where, entries);
  const [name, first] = entries[0]!;
  requireOneDevice(where, entries);
  if (!(first instanceof Tensor)) {
    return arrayStorage(first instanceof Float32Array ? Float32Array : Float64Array) as unknown as Storage<P>;
  }
  if (!isFloating(first.dtype)) {
    throw new DTypeError(
      `[${where}] parameter "${name}" has dtype ${first.dtype}; optimizers step floating-point tensors.`,
    );
  }
  return tensorStorage(first) as unknown as Storage<P>;
}

function requireOneDevice(where: string, entries: readonly (readonly [string, Parameter])[]): void {
  const [name, first] = entries[0]!;
  const elsewhere = entries.find(([, value]) => deviceOf(value) !== deviceOf(first));
  if (elsewhere === undefined) return;
  throw new DeviceError(
    `[${where}] all parameters of an optimizer must be on one device; "${name}" is on ${deviceOf(first)} and "${elsewhere[0]}" is on ${deviceOf(elsewhere[1])}. Make one optimizer for each device.`,
  );
}

/** Where a parameter lives; typed arrays are the CPU's. */
export const deviceOf = (value: Parameter): Device => (value instanceof Tensor ? value.device : "cpu");

/** Number of elements. Of a typed array by its bytes: V8's compiled code may find the old `length` after its buffer was transferred. */
export const sizeOf = (array: Parameter) =>
  array instanceof Tensor ? array.size : array.byteLength / array.BYTES_PER_ELEMENT;

/** Bytes of the elements. */
export const bytesOf = (array: Parameter) =>
  array instanceof Tensor ? itemSize(array.dtype) * array.size : array.byteLength;

/** The kind of a parameter in words: "float32 tensor", "Float32Array". */
export function describe(value: unknown): string {
  if (value instanceof Tensor) return `${value.dtype} tensor`;
  if (typeof value !== "object" || value === null) return String(value);
  return value.constructor?.name ?? "object";
}

/** Kind and shape of an array in words: "float32 tensor of shape [2, 3]", "Float32Array of 6 elements". */
export function portrait(value: unknown): string {
  if (value instanceof Tensor) return `${describe(value)} of shape [${value.shape.join(", ")}]`;
  return ArrayBuffer.isView(value) && "length" in value
    ? `${describe(value)} of ${value.length} elements`
    : describe(value);
}

function tensorStorage({ dtype: paramDType, device }: Tensor): Storage<Tensor> {
  const dtype = accumulationDType(paramDType);
  const reverse = (shape: readonly number[]) => shape.map((_, axis) => shape.length - 1 - axis);
  return {
    dtype,
    operand: (tensor) => tensor.handle,
    master: (param) => (paramDType === dtype ? undefined : keep(scope(() => astype(detach(param), dtype)))),
    checkStateDtype: (where, state) => checkStateDtype(where, state, dtype),
    zeros: (shape, state) => keep(zeros(shape, { dtype: state, device })),
    contiguous: (tensor) => (tensor.isContiguous ? tensor : tensor.clone()),
    assign: (target, source) => copyInto(target, source),
    reversed: (tensor, shape) => permute(tensor, reverse(shape)).clone(),
    assignReversed: (target, source, shape) =>
      copyInto(target, permute(source.reshape([...shape].reverse()), reverse(shape))),
    alias: (tensor) => keep(detach(tensor)),
    scalar: (value) => tensor(value, { dtype, device }),
    globalNorm,
    clipScale: (norm, maxNorm) => {
      // Finite norms: + 0. Infinity · 0 and NaN · 0 are NaN, which tells the kernel to change nothing.
      const guard = mul(norm, 0);
      if (maxNorm === Number.POSITIVE_INFINITY) return add(guard, 1);
      return add(minimum(div(maxNorm, add(norm, clipEps)), 1), guard);
    },
    tensor: (tensor) => tensor,
    own: (tensor) => keep(tensor.clone()),
    writer: (target, source) => () => copyInto(target, source),
    counter: () => keep(zeros([], { dtype: "float64", device })),
    read: (tensor) => (tensor as Tensor).item(),
    dispose: (tensor) => (tensor as Tensor).dispose(),
    run: (step) => scope(step),
  };
}

type FloatArray = Float32Array | Float64Array;

function arrayStorage(ArrayType: Float32ArrayConstructor | Float64ArrayConstructor): Storage<FloatArray> {
  const sizeOf = (shape: readonly number[]) => shape.reduce((size, n) => size * n, 1);
  const dtype = ArrayType === Float32Array ? "float32" : "float64";
  return {
    dtype,
    operand: (array) => array,
    master: () => undefined,
    checkStateDtype: (where, state) => {
      checkStateDtype(where, state, dtype);
      if (state !== dtype)
        throw new DTypeError(
          `[${where}] there is no typed array of ${state}; state of a ${ArrayType.name} is ${dtype}. Use tensors.`,
        );
    },
    zeros: (shape) => new ArrayType(sizeOf(shape)),
    contiguous: (array) => array,
    assign: (target, source) => target.set(source),
    reversed: (array, shape) => {
      const copy = new ArrayType(array.length);
      forEachReversed(shape, (i, j) => {
        copy[j] = array[i]!;
      });
      return copy;
    },
    assignReversed: (target, source, shape) =>
      forEachReversed(shape, (i, j) => {
        target[i] = source[j]!;
      }),
    alias: (array) => array,
    scalar: (value) => new ArrayType([value]),
    globalNorm: (grads) => {
      const norm = new ArrayType(1);
      engine().op.globalNorm(grads, norm);
      return norm;
    },
    clipScale: (norm, maxNorm) => {
      const value = norm[0]!;
      // In the precision of the arrays, so that tensors and arrays are stepped to the same bits.
      const round = ArrayType === Float32Array ? Math.fround : (x: number) => x;
      const factor = round(round(maxNorm) / round(value + round(clipEps)));
      const scale = maxNorm === Number.POSITIVE_INFINITY ? 1 : Math.min(1, factor);
      return new ArrayType([Number.isFinite(value) ? scale : Number.NaN]);
    },
    tensor: (array, shape, dtype) => tensor(array, { shape, dtype, device: "cpu" }),
    own: (tensor) => tensor.dataSync() as FloatArray,
    writer: (target, source) => {
      const values = source.dataSync() as FloatArray;
      return () => target.set(values);
    },
    counter: () => new Float64Array(1),
    read: async (array) => (array as FloatArray)[0]!,
    dispose: () => {},
    run: (step) => scope(step),
  };
}

/** Keeps the clipping factor finite when all gradients are 0; the same as PyTorch's. */
const clipEps = 1e-6;

/** Calls `visit(row-major index, index in the row-major order of the reversed axes)` for every element of a shape. */
function forEachReversed(shape: readonly number[], visit: (i: number, j: number) => void): void {
  const index = new Array<number>(shape.length).fill(0);
  const size = shape.reduce((product, n) => product * n, 1);
  for (let i = 0; i < size; i++) {
    let j = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) j = j * shape[axis]! + index[axis]!;
    visit(i, j);
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
  }
}
