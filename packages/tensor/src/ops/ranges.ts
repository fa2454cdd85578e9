/** Tensors of numbers in a row. */
import { DTypeCode, engine, OptionError } from "@llmeff/native";
import { chosenDevice, type DeviceChoice } from "../device.js";
import { checkDType, type DType } from "../dtype.js";
import { refuseUpload } from "../recording.js";
import { Tensor } from "../tensor.js";
import { checkCount, checkFinite } from "./arguments.js";
import { fill, type TensorOptions, zeros } from "./creation.js";
import { diagonal } from "./slice.js";

/** `[count]` numbers, each computed in float64 from its place. */
function computed(
  where: string,
  count: number,
  { dtype, device }: { dtype: DType; device: DeviceChoice | undefined },
  value: (i: number) => number,
): Tensor {
  checkDType(where, dtype);
  refuseUpload(where);
  const out = Tensor.allocate(dtype, [count], chosenDevice(where, device)); // refuses what there is no memory for
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) values[i] = value(i);
  engine().upload(out.handle, values, DTypeCode.float64);
  return out;
}

export interface ArangeOptions extends TensorOptions {
  /** From one number to the next; default 1. */
  step?: number;
}

/**
 * `start, start + step, …`, up to but without `end`; each computed on its own, so that errors don't add up.
 *
 * @param options.dtype - default int32 if all three are integers, else float32
 *
 * @example
 * arange(4); // int32 [0, 1, 2, 3]
 * arange(1, 2, { step: 0.25 }); // float32 [1, 1.25, 1.5, 1.75]
 */
export function arange(end: number, options?: ArangeOptions): Tensor;
export function arange(start: number, end: number, options?: ArangeOptions): Tensor;
export function arange(first: number, second?: number | ArangeOptions, third: ArangeOptions = {}): Tensor {
  const [start, end, options] =
    typeof second === "number" ? ([first, second, third] as const) : ([0, first, second ?? {}] as const);
  const { step = 1, device } = options;
  for (const [name, value] of Object.entries({ start, end, step })) checkFinite("arange", name, value);
  if (step === 0) throw new OptionError("[arange] step must not be 0.");
  const whole = [start, end, step].every(Number.isInteger);
  const { dtype = whole ? "int32" : "float32" } = options;
  return computed("arange", Math.max(0, Math.ceil((end - start) / step)), { dtype, device }, (i) => start + i * step);
}

/** `count` numbers from `start` to `end`, both included, equally far apart; default dtype float32. */
export function linspace(start: number, end: number, count: number, options: TensorOptions = {}): Tensor {
  checkFinite("linspace", "start", start);
  checkFinite("linspace", "end", end);
  checkCount("linspace", "count", count);
  const { dtype = "float32", device } = options;
  const last = Math.max(1, count - 1);
  // Weighted ends: both come out exactly, whatever their sizes.
  return computed("linspace", count, { dtype, device }, (i) => start * ((last - i) / last) + end * (i / last));
}

/** A matrix with ones on the diagonal; square by default, float32. */
export function eye(rows: number, columns = rows, options: TensorOptions = {}): Tensor {
  checkCount("eye", "rows", rows);
  checkCount("eye", "columns", columns);
  const out = zeros([rows, columns], options);
  using ones = diagonal(out);
  fill(ones, 1);
  return out;
}
