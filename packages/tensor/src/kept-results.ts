/** What a checkpoint keeps of its operations, so that they don't run again in the backward pass. */
import { OptionError } from "@llmeff/native";
import { aliasOf, hold, type OpResult, operationNames, resultsOf } from "./autograd.js";
import type { Tensor } from "./tensor.js";

/**
 * Which results to keep: of operations of these names, which are those in their error messages and must have been defined before, or of those for which the function says so. `marks` are
 * the names of `marked` around the call, the outermost first.
 */
export type KeepPolicy = readonly string[] | ((op: string, marks: readonly string[]) => boolean);

/** What an operation has saved for its backward pass: an input or a result, by its place, or something else. */
type Saved = { readonly input: number } | { readonly result: number } | Tensor;

interface KeptCall {
  readonly op: string;
  readonly single: boolean;
  readonly results: readonly Tensor[];
  readonly saved: readonly Saved[];
}

let marks: readonly string[] = [];

/**
 * Calls `fn` under a name, by which a checkpoint around it can choose whose results to keep.
 *
 * @example
 * const hidden = marked("feedForward", () => linear(swiglu(linear(x, gate), linear(x, up)), down));
 */
export function marked<R>(name: string, fn: () => R): R {
  const outer = marks;
  marks = [...outer, name];
  try {
    return fn();
  } finally {
    marks = outer;
  }
}

/** The kept results of one checkpoint: put in by its first run in the order of the calls, taken out by its second. */
export class KeptResults {
  readonly #keeps: (op: string, marks: readonly string[]) => boolean;
  readonly #calls: KeptCall[] = [];
  #taken = 0;

  constructor(policy: KeepPolicy) {
    const names = typeof policy === "function" ? undefined : new Set(checkedNames(policy));
    this.#keeps = names ? (op) => names.has(op) : (policy as Exclude<KeepPolicy, readonly string[]>);
  }

  keeps(op: string): boolean {
    return this.#keeps(op, marks);
  }

  /** Everything that is held: to be disposed, which may happen twice. */
  get tensors(): Tensor[] {
    return this.#calls.flatMap(({ results, saved }) => [
      ...results,
      ...saved.filter((one) => !("input" in one || "result" in one)),
    ]) as Tensor[];
  }

  /** Runs an operation, and keeps its results with what else its backward pass needs, but not its inputs. */
  run<R extends OpResult>(
    op: string,
    inputs: readonly Tensor[],
    forward: (save: (...tensors: Tensor[]) => void) => R,
  ): R {
    const saved: { tensor: Tensor; held: Tensor | undefined }[] = [];
    let kept = false;
    try {
      // Held at once, since what the operation makes beside its results is freed when it returns.
      const result = forward((...tensors) => {
        for (const tensor of tensors) saved.push({ tensor, held: inputs.includes(tensor) ? undefined : hold(tensor) });
      });
      const results = resultsOf(result);
      const places = saved.map(({ tensor, held }): Saved => {
        if (held === undefined) return { input: inputs.indexOf(tensor) };
        const place = results.indexOf(tensor);
        if (place < 0) return held;
        held.dispose();
        return { result: place };
      });
      this.#calls.push({ op, single: !Array.isArray(result), results: results.map(hold), saved: places });
      kept = true;
      return result;
    } finally {
      if (!kept) for (const { held } of saved) held?.dispose();
    }
  }

  /** In the place of running an operation again: its results, as tensors of the innermost scope, and by `save` what it had saved. */
  take<R extends OpResult>(op: string, inputs: readonly Tensor[], save: (...tensors: Tensor[]) => void): R {
    const call = this.#calls[this.#taken++];
    if (call === undefined || call.op !== op) throw differs(`it called ${op} instead of ${call?.op ?? "nothing more"}`);
    const results = call.results.map(aliasOf);
    for (const one of call.saved)
      save("input" in one ? inputs[one.input]! : "result" in one ? results[one.result]! : one);
    // Held by the recorded step now, as if it had run.
    for (const held of [...call.results, ...call.saved]) if ("dispose" in held) held.dispose();
    return (call.single ? results[0] : results) as R;
  }

  /** @throws {OptionError} if the second run has not made all calls of the first */
  requireTaken(): void {
    const left = this.#calls[this.#taken];
    if (left !== undefined) throw differs(`it didn't call ${left.op} as often`);
  }
}

function checkedNames(policy: unknown): readonly string[] {
  if (Array.isArray(policy) && policy.every((name) => typeof name === "string")) {
    const unknown = policy.find((name) => !operationNames.has(name));
    if (unknown === undefined) return policy;
    throw new OptionError(
      `[checkpoint] keep: there is no operation ${JSON.stringify(unknown)}. Operations: ${[...operationNames].sort().join(", ")}.`,
    );
  }
  throw new OptionError(
    `[checkpoint] keep must be names of operations or a function of such a name; received ${Array.isArray(policy) ? "an array of something else" : typeof policy}.`,
  );
}

/** @internal */
export function differs(how: string): OptionError {
  return new OptionError(
    `[checkpoint] the function must do the same each time it runs; when its activations were computed again, ${how}. Random numbers must come from keys, and what changes must be an input.`,
  );
}
