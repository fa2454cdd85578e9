import { DisposedError, DTypeCode, engine, type Handle, LlmeffError, nativeOrigin, ShapeError } from "@llmeff/native";
import { callSite } from "./call-site.js";
import {
  currentDevice,
  type Device,
  type DeviceChoice,
  deviceName,
  deviceNumber,
  devicesInUse,
  noteUse,
} from "./device.js";
import { allocateTypedArray, type DType, isFloating, type TypedArray } from "./dtype.js";
import * as ops from "./ops/index.js";
import { currentRecording, refuseReading } from "./recording.js";
import { type Owner, register, scope, unregister } from "./scope.js";
import { contiguousStrides, formatShape, isContiguous, type Shape, sizeOf } from "./shape.js";
import type { Tape } from "./tape.js";

/**
 * An array of numbers in the engine's memory.
 *
 * Operations on it are queued and run later, in order; `data` and `item` wait for them. Its memory is freed by `dispose`, at the end of
 * the `scope` it was made in, or by `using`; views share memory, which lives as long as one of them.
 */
export class Tensor {
  readonly shape: Shape;
  readonly dtype: DType;
  /** 0 for the CPU, 1 + i for CUDA device i. @internal */
  readonly deviceNumber: number;
  /** The tape that this tensor was computed under, if its gradient can be asked for. @internal */
  tape: Tape | undefined;
  /** Who frees it if nobody disposes it, and where it stands in that scope's list. @internal */
  owner: Owner | undefined;
  /** @internal */
  place = 0;
  #handle: Handle | undefined;
  #strides: Shape | undefined;

  /** Wraps an array of the engine, row-major unless it has strides; programs use `tensor`, `zeros`, … instead. @internal */
  constructor(handle: Handle, device: number, dtype: DType, shape: Shape, strides?: Shape) {
    this.#handle = handle;
    this.deviceNumber = device;
    this.#strides = strides;
    this.dtype = dtype;
    this.shape = shape;
    register(this);
  }

  /**
   * A new array with undefined contents, on the device of the operation that is running; outside of operations the device must be given, lest
   * it be the default. @internal
   */
  static allocate(dtype: DType, shape: Shape, device: number = currentDevice()): Tensor {
    noteUse(device);
    return new Tensor(engine().create(device, DTypeCode[dtype], ...shape), device, dtype, shape);
  }

  /** A tensor of the same memory with other shape and strides; `offset` in elements. No gradient flows through it. @internal */
  view(shape: Shape, strides: Shape, offset = 0): Tensor {
    return new Tensor(
      engine().view(this.handle, DTypeCode[this.dtype], offset, ...shape, ...strides),
      this.deviceNumber,
      this.dtype,
      shape,
      strides,
    );
  }

  /** The engine's name for the array. @internal */
  get handle(): Handle {
    if (this.#handle === undefined) {
      throw new DisposedError(
        `[Tensor] this ${this.dtype} tensor of shape ${formatShape(this.shape)} was disposed. Return it from its scope, or keep() it, to use it later.`,
      );
    }
    return this.#handle;
  }

  /** Where it lives: `"cpu"`, `"cuda:0"`, `"cuda:1"`, … */
  get device(): Device {
    return deviceName(this.deviceNumber);
  }
  get disposed(): boolean {
    return this.#handle === undefined;
  }
  /** Distance between neighbours on each axis, in elements; 0 on a broadcast axis. */
  get strides(): Shape {
    this.#strides ??= contiguousStrides(this.shape);
    return this.#strides;
  }
  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }
  get rank(): number {
    return this.shape.length;
  }
  get isContiguous(): boolean {
    return isContiguous(this.shape, this.strides);
  }

  /**
   * A copy of the values, row-major; bfloat16 and float16 as bits in a `Uint16Array`, bool as 0 and 1.
   *
   * @throws the error of the operation that should have made them, if it failed
   */
  data(): Promise<TypedArray> {
    refuseReading("data"); // at the call, not by a promise that a step can't await
    return this.#read();
  }

  async #read(): Promise<TypedArray> {
    try {
      return await engine().read(this.handle, allocateTypedArray(this.dtype, this.size));
    } catch (error) {
      throw located(error);
    }
  }

  /** `data`, holding up the thread until the values are there. */
  dataSync(): TypedArray {
    refuseReading("dataSync");
    try {
      return engine().readSync(this.handle, allocateTypedArray(this.dtype, this.size));
    } catch (error) {
      throw located(error);
    }
  }

  /** The value of a tensor with one element. */
  item(): Promise<number> {
    refuseReading("item");
    return this.#readSingle();
  }

  async #readSingle(): Promise<number> {
    this.#checkSingle();
    return numberOf(this.dtype, await this.#read());
  }

  /** `item`, holding up the thread until the value is there. */
  itemSync(): number {
    refuseReading("itemSync");
    this.#checkSingle();
    return numberOf(this.dtype, this.dataSync());
  }

  #checkSingle(): void {
    if (this.size !== 1) {
      throw new ShapeError(
        `[item] expected one element; received shape ${formatShape(this.shape)}. Use data() for all of them.`,
      );
    }
  }

  /** Gives the memory back (when no view and no pending gradient needs it). Disposing twice does nothing. */
  dispose(): void {
    if (this.#handle === undefined) return;
    unregister(this);
    engine().release(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** dtype, shape and, if they are few, the values. Waits for them. */
  toString(): string {
    const head = `Tensor(${this.dtype} ${formatShape(this.shape)}`;
    if (this.disposed) return `${head}, disposed)`;
    const shown = 8;
    const values = scope(() => {
      const first = ops.slice(ops.reshape(ops.detach(this), [this.size]), 0, 0, Math.min(shown, this.size));
      const wide = isFloating(this.dtype) && this.dtype !== "float64" ? ops.astype(first, "float32") : first;
      return Array.from(wide.dataSync(), (x) => Number(x.toPrecision(5)));
    });
    return `${head}: ${values.join(", ")}${this.size > shown ? ", …" : ""})`;
  }

  // The functions of the same names, for chains such as x.mul(2).sum().
  add(b: Tensor | number): Tensor {
    return ops.add(this, b);
  }
  sub(b: Tensor | number): Tensor {
    return ops.sub(this, b);
  }
  mul(b: Tensor | number): Tensor {
    return ops.mul(this, b);
  }
  div(b: Tensor | number): Tensor {
    return ops.div(this, b);
  }
  pow(b: Tensor | number): Tensor {
    return ops.pow(this, b);
  }
  neg(): Tensor {
    return ops.neg(this);
  }
  exp(): Tensor {
    return ops.exp(this);
  }
  log(): Tensor {
    return ops.log(this);
  }
  sqrt(): Tensor {
    return ops.sqrt(this);
  }
  square(): Tensor {
    return ops.square(this);
  }
  sum(options?: ops.ReduceOptions): Tensor {
    return ops.sum(this, options);
  }
  mean(options?: ops.ReduceOptions): Tensor {
    return ops.mean(this, options);
  }
  max(options?: ops.ReduceOptions): Tensor {
    return ops.max(this, options);
  }
  min(options?: ops.ReduceOptions): Tensor {
    return ops.min(this, options);
  }
  matmul(b: Tensor): Tensor {
    return ops.matmul(this, b);
  }
  reshape(shape: Shape): Tensor {
    return ops.reshape(this, shape);
  }
  permute(axes: readonly number[]): Tensor {
    return ops.permute(this, axes);
  }
  transpose(a = -2, b = -1): Tensor {
    return ops.transpose(this, a, b);
  }
  /** The last two axes exchanged. */
  get T(): Tensor {
    return ops.transpose(this);
  }
  slice(axis: number, start: number, end?: number, step = 1): Tensor {
    return ops.slice(this, axis, start, end, step);
  }
  squeeze(axis?: number | readonly number[]): Tensor {
    return ops.squeeze(this, axis);
  }
  unsqueeze(axis: number): Tensor {
    return ops.unsqueeze(this, axis);
  }
  flatten(start = 0, end = -1): Tensor {
    return ops.flatten(this, start, end);
  }
  expand(shape: Shape): Tensor {
    return ops.expand(this, shape);
  }
  astype(dtype: DType): Tensor {
    return ops.astype(this, dtype);
  }
  /** The tensor itself if it is on the device, else a copy there. */
  to(device: DeviceChoice): Tensor {
    return ops.toDevice(this, device);
  }
  clone(): Tensor {
    return ops.clone(this);
  }
  detach(): Tensor {
    return ops.detach(this);
  }
}

/** Where calls were made whose failure shows only when the work runs (token ids out of range): the last few hundred. */
const callSites = new Map<number, Error>();
const callSiteLimit = 256;
/** Those of captured steps, as long as these may be replayed. */
const capturedSites = new Map<number, Error>();

/** Remembers the caller of a queued operation that can fail on its values. @internal */
export function rememberCallSite(ticket: number): void {
  if (ticket === 0) return;
  const recording = currentRecording();
  if (recording) {
    recording.sites.set(ticket, callSite("captured here"));
    return;
  }
  callSites.set(ticket, callSite("queued here"));
  if (callSites.size > callSiteLimit) callSites.delete(callSites.keys().next().value!);
}

/** @internal */
export function keepCallSites(sites: ReadonlyMap<number, Error>): void {
  for (const [ticket, site] of sites) capturedSites.set(ticket, site);
}

/** @internal */
export function forgetCallSites(sites: ReadonlyMap<number, Error>): void {
  for (const ticket of sites.keys()) capturedSites.delete(ticket);
}

/** Adds to an engine's error the place where its operation was called. */
function located(error: unknown): unknown {
  if (!(error instanceof LlmeffError)) return error;
  const origin = nativeOrigin(error);
  const site = origin && (callSites.get(origin.ticket) ?? capturedSites.get(origin.ticket));
  if (site?.stack) {
    const frames = site.stack.split("\n").slice(3).join("\n");
    error.stack = `${error.name}: ${error.message}\n  queued\n${frames}\n  found\n${error.stack?.split("\n").slice(1).join("\n")}`;
  }
  return error;
}

/**
 * Waits until all queued work has run, of a device or of all that are in use.
 *
 * @throws the oldest failure that no read has reported
 */
export function sync(device?: DeviceChoice): Promise<void> {
  refuseReading("sync");
  return synchronized(device);
}

async function synchronized(device?: DeviceChoice): Promise<void> {
  const numbers = device === undefined ? devicesInUse() : [deviceNumber("sync", device)];
  const outcomes = await Promise.allSettled(numbers.map((number) => engine().synchronize(number)));
  for (const outcome of outcomes) if (outcome.status === "rejected") throw located(outcome.reason);
}

function numberOf(dtype: DType, data: TypedArray): number {
  const value = data[0]!;
  if (dtype === "bfloat16") return new Float32Array(Uint32Array.of(value << 16).buffer)[0]!;
  if (dtype === "float16") return halfToNumber(value);
  return value;
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
