import { engine, OptionError } from "@llmeff/native";
import type { Tensor } from "./tensor.js";
import { tensorsOf } from "./tree.js";

/** Scopes that are open, innermost last; each lists the tensors made while it was innermost. */
const open: Set<Tensor>[] = [];

/** Notes a new tensor in the innermost scope. @internal */
export function register(tensor: Tensor): void {
  open.at(-1)?.add(tensor);
}

/** Takes a tensor out of the innermost scope, if it was made there: then the caller owns it. @internal */
export function claim(tensor: Tensor): boolean {
  return open.at(-1)?.delete(tensor) ?? false;
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
  const made = new Set<Tensor>();
  open.push(made);
  let result: R;
  try {
    result = fn();
    refuseAsync("scope", result);
  } catch (error) {
    open.pop();
    for (const tensor of made) tensor.dispose();
    throw error;
  }
  open.pop();
  for (const tensor of tensorsOf(result)) {
    if (made.delete(tensor)) register(tensor);
  }
  for (const tensor of made) tensor.dispose();
  return result;
}

/** Takes a tensor (or all in a tree of them) out of every open scope: it lives until it is disposed. */
export function keep<R>(tensors: R): R {
  for (const tensor of tensorsOf(tensors)) for (const made of open) made.delete(tensor);
  return tensors;
}

export interface MemoryUse {
  /** Tensors of this thread that have not been disposed, those that a pending gradient holds included. */
  tensors: number;
  /** Bytes in use, rounded up to the allocator's size classes; all threads of the process. */
  liveBytes: number;
  /** The most that liveBytes has been since the start or `resetPeakMemory`. */
  peakBytes: number;
  /** Free blocks held for reuse. */
  cachedBytes: number;
}

/** What the engine's memory is used for now. */
export function memory(): MemoryUse {
  const { handles, liveBytes, peakBytes, cachedBytes } = engine().memory();
  return { tensors: handles, liveBytes, peakBytes, cachedBytes };
}

/** Lets `memory().peakBytes` start again from what is live now. */
export function resetPeakMemory(): void {
  engine().resetPeak();
}

/** Returns the free blocks that are held for reuse to the system. */
export function emptyCache(): void {
  engine().emptyCache();
}
