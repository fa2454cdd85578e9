import { DTypeCode, DTypeError } from "@llmeff/native";

/**
 * Element types. Operations on bfloat16 and float16 compute in float32 and round each result once; their values are read and written as
 * bits in a `Uint16Array`.
 */
export type DType = keyof typeof DTypeCode;

export type TypedArray = Float32Array | Float64Array | Int32Array | Uint8Array | Uint16Array;

const typedArrays = {
  float32: Float32Array,
  float64: Float64Array,
  bfloat16: Uint16Array,
  float16: Uint16Array,
  int32: Int32Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const satisfies Record<DType, unknown>;

const itemSizes = {
  float32: 4,
  float64: 8,
  bfloat16: 2,
  float16: 2,
  int32: 4,
  uint8: 1,
  bool: 1,
} as const satisfies Record<DType, number>;

/** Bytes of one element. */
export function itemSize(dtype: DType): number {
  return itemSizes[dtype];
}

/** A new typed array that holds `size` elements of a dtype. */
export function allocateTypedArray(dtype: DType, size: number): TypedArray {
  return new typedArrays[dtype](size);
}

/** Whether a typed array is of the kind that holds elements of a dtype. */
export function holds(data: unknown, dtype: DType): data is TypedArray {
  return data instanceof typedArrays[dtype];
}

/** Whether values of this dtype may carry gradients. */
export function isFloating(dtype: DType): boolean {
  return dtype === "float32" || dtype === "float64" || dtype === "bfloat16" || dtype === "float16";
}

/** The dtype in which numbers of a dtype are added up and their statistics kept: float64 for float64, else float32. */
export function accumulationDType(dtype: DType): "float32" | "float64" {
  return dtype === "float64" ? "float64" : "float32";
}

/** The dtype that a typed array's elements have on the device. */
export function dtypeOf(data: TypedArray): DType {
  if (data instanceof Float32Array) return "float32";
  if (data instanceof Float64Array) return "float64";
  if (data instanceof Int32Array) return "int32";
  if (data instanceof Uint8Array) return "uint8";
  if (data instanceof Uint16Array) {
    throw new DTypeError(
      "[tensor] a Uint16Array may hold bfloat16 or float16 bits; name the dtype, e.g. tensor(bits, { dtype: 'bfloat16' }).",
    );
  }
  throw new DTypeError(
    `[tensor] expected a Float32Array, Float64Array, Int32Array, Uint8Array or Uint16Array; received ${(data as object).constructor.name}. Convert it, e.g. Int32Array.from(data).`,
  );
}

export function checkDType(where: string, dtype: unknown): asserts dtype is DType {
  if (typeof dtype !== "string" || !Object.hasOwn(DTypeCode, dtype)) {
    throw new DTypeError(
      `[${where}] expected a dtype of ${Object.keys(DTypeCode).join(", ")}; received ${JSON.stringify(dtype)}.`,
    );
  }
}
