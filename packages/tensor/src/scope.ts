import { engine, type Handle, OptionError } from "@llmeff/native";
import { type DeviceChoice, defaultDevice, deviceNumber } from "./device.js";
import { refuseWhileCapturing } from "./recording.js";
import { Tensor } from "./tensor.js";
import { tensorsOf } from "./tree.js";

/** Gives native memory back when a tensor that nobody disposed is collected. The safety net, not the plan: use `scope` or `using`. */
const forgotten = new FinalizationRegistry<Handle>((handle) => engine().release(handle));

/** The tensors of a scope that is open: those made while it was innermost that were not disposed or given away since. */
class Scope {
  /** Each knows its place here. */
  readonly tensors: Tensor[] = [];
  constructor(readonly outer: Scope | undefined) {}
}

let innermost: Scope | undefined;

/** Who frees a tensor that nobody disposes: its scope, or the garbage collector. */
export type Owner = Scope | "collector";

/** Makes the innermost scope the owner of a tensor; outside of any scope, the garbage collector. @internal */
export function register(tensor: Tensor): void {
  unregister(tensor);
  give(tensor, innermost);
}

function give(tensor: Tensor, scope: Scope | undefined): void {
  if (scope === undefined) {
    // A scope holds its tensors, so that the collector can't find them: only those outside are worth the registry's time.
    forgotten.register(tensor, tensor.handle, tensor);
    tensor.owner = "collector";
  } else {
    tensor.owner = scope;
    tensor.place = scope.tensors.push(tensor) - 1;
  }
}

/** Takes a tensor from its owner for a caller that is sure to dispose it. @internal */
export function adopt(tensor: Tensor): Tensor {
  unregister(tensor);
  return tensor;
}

/** Takes a tensor out of the innermost scope, if it was made there: then the caller owns it, and nobody else will free it. @internal */
export function claim(tensor: Tensor): boolean {
  if (innermost === undefined || tensor.owner !== innermost) return false;
  unregister(tensor);
  return true;
}

/** Takes a tensor from its owner. @internal */
export function unregister(tensor: Tensor): void {
  const { owner } = tensor;
  if (owner === undefined) return;
  tensor.owner = undefined;
  if (owner === "collector") {
    forgotten.unregister(tensor);
    return;
  }
  const last = owner.tensors.pop()!;
  if (last === tensor) return;
  owner.tensors[tensor.place] = last;
  last.place = tensor.place;
}

/** Refuses the Promise of an asynchronous function, whose own failure, which nobody will see, must not end the process. @internal */
export function refuseAsync(where: string, result: unknown): void {
  if (!(result instanceof Promise)) return;
  result.catch(() => undefined);
  throw new OptionError(
    `[${where}] expected a function that returns a value; received one that returns a Promise. Await outside of it.`,
  );
}

/**
 * Runs `fn` and frees the tensors that it made, except those that it returns (anywhere in the arrays and plain objects of its
 * result), which then belong to the enclosing scope, and those given to `keep`.
 *
 * @throws {OptionError} if `fn` is asynchronous: a scope ends when `fn` returns, so await outside
 *
 * @example
 * const norm = scope(() => x.square().sum().sqrt()); // only the result stays
 */
export function scope<R>(fn: () => R): R {
  const made = new Scope(innermost);
  innermost = made;
  try {
    const result = fn();
    refuseAsync("scope", result);
    innermost = made.outer;
    if (result instanceof Tensor) handOver(result, made);
    else if (typeof result === "object") for (const tensor of tensorsOf(result)) handOver(tensor, made);
    return result;
  } finally {
    innermost = made.outer;
    for (let tensor = made.tensors.pop(); tensor !== undefined; tensor = made.tensors.pop()) {
      tensor.owner = undefined;
      tensor.dispose();
    }
  }
}

/** Gives a result to the enclosing scope, if it was made in this one. */
function handOver(tensor: Tensor, from: Scope): void {
  if (tensor.owner !== from) return;
  unregister(tensor);
  give(tensor, from.outer);
}

/** Takes a tensor (or all in a tree of them) out of every open scope: it lives until it is disposed. */
export function keep<R>(tensors: R): R {
  for (const tensor of tensorsOf(tensors)) {
    if (!(tensor.owner instanceof Scope)) continue;
    unregister(tensor);
    give(tensor, undefined);
  }
  return tensors;
}

export interface MemoryUse {
  /** Tensors of this thread, on all devices, that have not been disposed, those that a pending gradient holds included. */
  tensors: number;
  /** Bytes in use, rounded up to the allocator's size classes; all threads of the process. */
  liveBytes: number;
  /** The most that liveBytes has been since the start or `resetPeakMemory`. */
  peakBytes: number;
  /** Free blocks held for reuse. */
  cachedBytes: number;
}

// All of a device; by default the default device.

/** What the engine's memory on a device is used for now. */
export function memory(device?: DeviceChoice): MemoryUse {
  const { handles, liveBytes, peakBytes, cachedBytes } = engine().memory(numberOf("memory", device));
  return { tensors: handles, liveBytes, peakBytes, cachedBytes };
}

/** Lets `memory().peakBytes` start again from what is live now. */
export function resetPeakMemory(device?: DeviceChoice): void {
  engine().resetPeak(numberOf("resetPeakMemory", device));
}

/** Returns the free blocks that are held for reuse to the system. */
export function emptyCache(device?: DeviceChoice): void {
  refuseWhileCapturing("emptyCache", "it waits for all queued work", "Call it outside of the step.");
  engine().emptyCache(numberOf("emptyCache", device));
}

function numberOf(where: string, device: DeviceChoice = defaultDevice()): number {
  return deviceNumber(where, device);
}
