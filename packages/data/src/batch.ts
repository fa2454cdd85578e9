/** What a training loop consumes, whoever makes it: text windows or a generated task. */
import { FormatError, OptionError } from "@llmeff/native/errors";

/** Target of a position that carries no loss. */
export const IGNORE_INDEX = -100;

/** `batchSize` rows of `seqLen` positions. `targets[b, t]` is what position t must predict: already shifted for text. */
export interface Batch {
  /** `[B, T]`, row-major. */
  readonly tokens: Int32Array;
  /** `[B, T]`; `IGNORE_INDEX` where there is no loss. */
  readonly targets: Int32Array;
  /** B */
  readonly batchSize: number;
  /** T */
  readonly seqLen: number;
  /** Further arrays that go to the objective with the batch, such as the documents of packed rows. */
  readonly extras?: Readonly<Record<string, BatchArray>>;
  /** Place of each row's first token in the stream that the rows are cut from, where there is one. */
  readonly origins?: Float64Array;
}

/** An array of a batch, row-major. */
export interface BatchArray {
  readonly data: Int32Array | Float32Array;
  readonly shape: readonly number[];
}

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/**
 * An endless, resumable sequence of batches.
 *
 * `state()` describes the place after the last batch that `next()` handed out; `restore(state())` on a fresh source of the
 * same options makes it continue with the very same batches.
 */
export interface BatchSource {
  next(): Promise<Batch> | Batch;
  state(): JsonObject;
  restore(state: JsonObject): void;
}

/** A finite list of batches that can be walked as often as wanted; for evaluation. */
export interface BatchSet extends Iterable<Batch> {
  /** Number of positions that carry loss. */
  readonly targetCount: number;
}

/** Checks that `value` is an integer of at least `minimum`, and returns it. */
export function requireInteger(where: string, name: string, value: number, minimum: number): number {
  if (!Number.isSafeInteger(value) || value < minimum) {
    throw new OptionError(`[${where}] ${name} must be an integer of at least ${minimum}; received ${value}.`);
  }
  return value;
}

/**
 * Checks a stored state: every field of `fixed` must be in it with that value, every name of `counters` must be an integer ≥ 0.
 *
 * @returns the counters
 * @throws {FormatError} naming the first field that differs
 */
export function readState<C extends string>(
  where: string,
  state: JsonObject,
  fixed: JsonObject,
  counters: readonly C[],
): Record<C, number> {
  if (typeof state !== "object" || state === null || Array.isArray(state)) {
    throw new FormatError(`[${where}] the state must be an object made by state(); received ${JSON.stringify(state)}.`);
  }
  for (const [name, expected] of Object.entries(fixed)) {
    if (state[name] !== expected) {
      throw new FormatError(
        `[${where}] the state has ${name} ${JSON.stringify(state[name])} but this source has ${JSON.stringify(expected)}. ` +
          "Resume with the data and options that the state was made with.",
      );
    }
  }
  const read = {} as Record<C, number>;
  for (const name of counters) {
    const value = state[name];
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
      throw new FormatError(
        `[${where}] the state's ${name} must be an integer of at least 0; received ${JSON.stringify(value)}. The state is damaged.`,
      );
    }
    read[name] = value;
  }
  return read;
}

/** Restores several sources, or none: if one refuses its state, the others go back to where they were. */
export function restoreAll(
  where: string,
  sources: readonly Pick<BatchSource, "state" | "restore">[],
  states: Json | undefined,
): void {
  if (!Array.isArray(states) || states.length !== sources.length) {
    throw new FormatError(`[${where}] the state must hold those of ${sources.length} sources. The state is damaged.`);
  }
  const before = sources.map((source) => source.state());
  try {
    for (const [i, source] of sources.entries()) source.restore(states[i] as JsonObject);
  } catch (error) {
    for (const [i, source] of sources.entries()) source.restore(before[i]!);
    throw error;
  }
}
