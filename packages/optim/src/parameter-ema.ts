/**
 * A running average of parameters, to evaluate and to keep instead of the last ones.
 */
import { FormatError, OptionError } from "@llmeff/native";
import { add, astype, copyInto, div, hostEffect, keep, mul, scope, Tensor } from "@llmeff/tensor";
import { checkBeta, checkBoolean, checkKeys, show } from "./check.js";
import { own } from "./records.js";
import { refuseChange } from "./step-numbers.js";
import { bytesOf, type Parameter, portrait, type Storage, storageOf } from "./storage.js";

export interface ParameterEmaOptions {
  /** Share of the old average in the new one, in [0, 1); default 0.999. */
  decay?: number;
  /**
   * `false` (default): the average starts as the parameters are when it is made. `true`: it starts at 0 and is divided by `1 − decayᵗ` where it is used,
   * so that the start is forgotten at once.
   */
  debias?: boolean;
}

/** A saved average: named arrays for a safetensors file, and JSON. */
export interface ParameterEmaState<P extends Parameter> {
  tensors: Record<string, P>;
  meta: { kind: "parameter-ema"; format: 1; count: number; debias: boolean };
}

/**
 * Exponential moving average of parameters: `e ← decay·e + (1 − decay)·p`, in float32 for bfloat16 and float16 parameters.
 *
 * @param params - tensors, or typed arrays; `swap` and `restore` change them in place
 * @throws {OptionError} for a decay outside [0, 1)
 *
 * @example
 * const average = new ParameterEma(params, { decay: 0.999 });
 * optimizer.hooks.afterStep(() => average.update());
 * // …
 * average.swap();
 * const loss = evaluate(params);
 * average.restore();
 */
export class ParameterEma<P extends Parameter> {
  readonly #params: ReadonlyMap<string, P>;
  readonly #storage: Storage<P>;
  readonly #averages = new Map<string, P>();
  readonly #decay: number;
  readonly #debias: boolean;
  /** The parameters while the average is in their place. */
  #saved: Map<string, P> | undefined;
  #count = 0;

  constructor(params: Readonly<Record<string, P>>, options: ParameterEmaOptions = {}) {
    checkKeys("ParameterEma", options, ["decay", "debias"]);
    const { decay = 0.999, debias = false } = options;
    checkBeta("ParameterEma", "decay", decay);
    checkBoolean("ParameterEma", "debias", debias);
    this.#storage = storageOf("ParameterEma", params);
    this.#params = new Map(Object.entries(params));
    this.#decay = decay;
    this.#debias = debias;
    for (const [name, param] of this.#params) {
      const average = this.#storage.zeros("shape" in param ? param.shape : [param.length], this.#storage.dtype);
      if (!debias) this.#storage.assign(average, param);
      this.#averages.set(name, average);
    }
  }

  /** Updates so far. */
  get count(): number {
    return this.#count;
  }

  /**
   * Takes the parameters as they are now into the average.
   *
   * @throws {OptionError} while the average is in their place
   */
  update(): void {
    this.#requireSwapped("update", false);
    this.#storage.run(() => {
      for (const [name, param] of this.#params) this.#takeIn(this.#averages.get(name)!, param);
    });
    hostEffect(() => this.#count++);
  }

  #takeIn(average: P, param: P): void {
    const share = 1 - this.#decay;
    if (average instanceof Tensor) {
      const p = param as Tensor;
      const wide = p.dtype === average.dtype ? p : astype(p, average.dtype);
      copyInto(average, add(mul(average, this.#decay), mul(wide, share)));
      return;
    }
    const [e, p] = [average as Float64Array, param as Float64Array];
    for (let i = 0; i < e.length; i++) e[i] = this.#decay * e[i]! + share * p[i]!;
  }

  /**
   * Puts the average in the place of the parameters, which are kept for `restore`.
   *
   * @throws {OptionError} if it is there already, or has no value yet (`debias` before the first `update`)
   */
  swap(): void {
    refuseChange("ParameterEma.swap");
    this.#requireSwapped("swap", false);
    if (this.#debias && this.#count === 0) {
      throw new OptionError("[ParameterEma.swap] a debiased average has no value before the first update().");
    }
    const correction = this.#debias ? 1 - this.#decay ** this.#count : 1;
    this.#saved = new Map(Array.from(this.#params, ([name, param]) => [name, copyOf(param)]));
    this.#storage.run(() => {
      for (const [name, param] of this.#params) {
        const average = this.#averages.get(name)!;
        if (average instanceof Tensor) copyInto(param as Tensor, correction === 1 ? average : div(average, correction));
        else (param as Float64Array).set((average as Float64Array).map((x) => x / correction));
      }
    });
  }

  /**
   * Puts back the parameters as they were before `swap`, bit by bit.
   *
   * @throws {OptionError} if the average isn't in their place
   */
  restore(): void {
    refuseChange("ParameterEma.restore");
    this.#requireSwapped("restore", true);
    for (const [name, param] of this.#params) {
      const saved = this.#saved!.get(name)!;
      this.#storage.assign(param, saved);
      this.#storage.dispose(saved);
    }
    this.#saved = undefined;
  }

  #requireSwapped(method: string, swapped: boolean): void {
    if ((this.#saved !== undefined) === swapped) return;
    throw new OptionError(
      swapped
        ? `[ParameterEma.${method}] the parameters are in their place; call swap() first.`
        : `[ParameterEma.${method}] the average is in the place of the parameters; call restore() first.`,
    );
  }

  /** The averages themselves (not copies, not yet debiased) by the parameters' names, and the count. */
  stateDict(): ParameterEmaState<P> {
    return {
      tensors: Object.fromEntries(this.#averages),
      meta: { kind: "parameter-ema", format: 1, count: this.#count, debias: this.#debias },
    };
  }

  /**
   * Continues from a saved average, which is copied.
   *
   * @throws {FormatError} for one of other parameters or of the other `debias`; nothing is changed then
   */
  loadStateDict(saved: ParameterEmaState<P>): void {
    const where = "ParameterEma.loadStateDict";
    refuseChange(where);
    const { tensors, meta } = (saved ?? {}) as Partial<ParameterEmaState<P>>;
    if (meta?.kind !== "parameter-ema" || meta.format !== 1 || meta.debias !== this.#debias) {
      throw new FormatError(
        `[${where}] expected a parameter-ema of format 1 with debias ${this.#debias}; received ${JSON.stringify(meta)}.`,
      );
    }
    if (!Number.isSafeInteger(meta.count) || meta.count < 0) {
      throw new FormatError(`[${where}] meta.count must be a non-negative integer; received ${String(meta.count)}.`);
    }
    if (typeof tensors !== "object" || tensors === null) {
      throw new FormatError(`[${where}] expected arrays by name in "tensors"; received ${show(tensors)}.`);
    }
    for (const name of new Set([...this.#averages.keys(), ...Object.keys(tensors)])) {
      const array = own(tensors, name);
      const [wanted, received] = [portrait(this.#averages.get(name)), portrait(array)];
      if (wanted !== received) throw new FormatError(`[${where}] "${name}" must be ${wanted}; received ${received}.`);
      if (array instanceof Tensor && array.disposed) throw new FormatError(`[${where}] "${name}" was disposed.`);
    }
    for (const [name, average] of this.#averages) this.#storage.assign(average, tensors[name]!);
    this.#count = meta.count;
  }

  /** Bytes of the averages. */
  stateBytes(): number {
    return [...this.#averages.values()].reduce((bytes, array) => bytes + bytesOf(array), 0);
  }

  /** Frees the averages, and the kept parameters if the average is in their place. */
  dispose(): void {
    for (const array of [...this.#averages.values(), ...(this.#saved?.values() ?? [])]) this.#storage.dispose(array);
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A copy that belongs to the caller, in the dtype of the parameter. */
function copyOf<P extends Parameter>(param: P): P {
  return (param instanceof Tensor ? keep(scope(() => param.clone())) : param.slice()) as P;
}
