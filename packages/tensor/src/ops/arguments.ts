/** Checks and preparations that several ops share. */
import { DTypeError, OptionError, ShapeError } from "@llmeff/native";
import { apart } from "../device.js";
import { isFloating } from "../dtype.js";
import { formatShape, type Shape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { clone } from "./clone.js";

/** `name is [2, 3] float32`, for messages. */
export function describe(name: string, tensor: Tensor): string {
  return `${name} is ${formatShape(tensor.shape)} ${tensor.dtype}`;
}

export function checkTensor(where: string, name: string, value: unknown): asserts value is Tensor {
  if (!(value instanceof Tensor)) {
    throw new DTypeError(
      `[${where}] ${name} must be a Tensor; received ${value === null ? "null" : typeof value}. Use tensor(…).`,
    );
  }
}

/** All have one floating-point dtype and are on one device. */
export function checkFloating(where: string, tensors: Record<string, Tensor>): void {
  let first: string | undefined;
  for (const name in tensors) {
    const tensor = tensors[name]!;
    checkTensor(where, name, tensor);
    if (!isFloating(tensor.dtype)) {
      throw new DTypeError(
        `[${where}] ${name} must have a floating-point dtype; received ${tensor.dtype}. Use astype().`,
      );
    }
    first ??= name;
    if (tensor.deviceNumber !== tensors[first]!.deviceNumber) {
      throw apart(where, first, tensors[first]!.deviceNumber, name, tensor.deviceNumber);
    }
    if (tensor.dtype !== tensors[first]!.dtype) {
      throw new DTypeError(
        `[${where}] dtypes differ: ${first} is ${tensors[first]!.dtype} and ${name} is ${tensor.dtype}. Use astype().`,
      );
    }
  }
}

/** What can be put in order and added up exactly or in the wider dtype: floating-point numbers and int32. */
export function checkComparable(where: string, name: string, tensor: Tensor): void {
  checkTensor(where, name, tensor);
  if (tensor.dtype !== "int32") checkFloating(where, { [name]: tensor });
}

export function checkIds(where: string, name: string, ids: Tensor): void {
  checkTensor(where, name, ids);
  if (ids.dtype !== "int32") {
    throw new DTypeError(
      `[${where}] ${name} must be int32; received ${ids.dtype}. Use tensor(Int32Array.from(…)) or astype('int32').`,
    );
  }
}

/** Positions are int32: of at most 2³¹ − 1 elements. `what` names where they are counted. */
export function checkPositions(where: string, what: string, count: number): void {
  if (count > 2 ** 31 - 1) {
    throw new ShapeError(
      `[${where}] ${what} must have at most 2147483647 elements, since positions are int32; received ${count}. Split it.`,
    );
  }
}

export function checkRank(where: string, name: string, tensor: Tensor, rank: number, form: string): void {
  if (tensor.rank !== rank) {
    throw new ShapeError(`[${where}] ${name} must be ${form}; received ${formatShape(tensor.shape)}.`);
  }
}

export function checkEqual(where: string, what: string, a: number, b: number, shapes: Record<string, Tensor>): void {
  if (a === b) return;
  const all = Object.entries(shapes).map(([name, tensor]) => `${name} is ${formatShape(tensor.shape)}`);
  throw new ShapeError(`[${where}] ${what} differ: ${a} ≠ ${b} (${all.join(", ")}).`);
}

export function checkFinite(where: string, name: string, value: number): void {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new OptionError(`[${where}] ${name} must be a finite number; received ${value}.`);
  }
}

export function checkCount(where: string, name: string, value: number, advice = ""): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new OptionError(`[${where}] ${name} must be a non-negative integer; received ${value}.${advice}`);
  }
}

/** The tensor itself if its elements lie in row-major order, else a copy. */
export function contiguous(tensor: Tensor): Tensor {
  return tensor.isContiguous ? tensor : clone(tensor);
}

/** The tensor itself if its last axis is contiguous, else a copy: what kernels that work on rows take. */
export function rows(tensor: Tensor): Tensor {
  return tensor.rank === 0 || tensor.shape.at(-1) === 1 || tensor.strides.at(-1) === 1 ? tensor : clone(tensor);
}

/** Number of rows of an array: the product of all axes but the last. */
export function leadingSize(shape: Shape): number {
  return shape.slice(0, -1).reduce((a, b) => a * b, 1);
}
