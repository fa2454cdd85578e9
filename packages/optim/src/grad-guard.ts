/**
 * The global norm of a step's gradients: what clips them, and what happens when it isn't finite.
 */
import { NonFiniteError, OptionError } from "@llmeff/native";
import { hostCheck, hostEffect, isCapturing } from "@llmeff/tensor";
import { checkKeys, checkNumber, checkOneOf } from "./check.js";
import type { StepOptions } from "./optimizer-types.js";
import type { Parameter, Storage } from "./storage.js";

export interface GradGuardOptions {
  /**
   * Scales all gradients so that their global norm is at most this. `Infinity` never scales, and still measures the norm and guards.
   * Absent, and without `nonFinite`: neither. The norm never leaves the device.
   *
   * A step with a NaN or infinite norm changes no parameter and no state array, and is counted like any other, because the host doesn't know of
   * it: the schedule goes on, and the bias corrections `1 − βᵗ` of later steps have a `t` that is larger by one. That matters among the
   * first steps only: with AdamW's defaults a skipped first step makes the second one's update 0.74 times as long, and the hundredth's 1.005 times.
   */
  maxGradNorm?: number;
  /**
   * What a step does whose gradients hold a NaN or infinity. Giving it has the norm measured, as `maxGradNorm: Infinity` does.
   *
   * `"skip"` (default where the norm is measured): changes nothing, and says nothing but in `gradNorm()`.
   *
   * `"throw"`: changes nothing, and a `NonFiniteError` tells of it. For typed arrays `step` throws it at once, and doesn't count the step. On
   * tensors a step is only queued when `step` returns, so the error comes from the first `step` or `settled` after the device's
   * answer has reached the host. Steps that were queued in between have been taken, with the parameters as the skipped one left them.
   */
  nonFinite?: "skip" | "throw";
}

/** Measures and remembers the norm for one optimizer, or for several that step together. */
export class GradGuard<P extends Parameter> {
  readonly maxGradNorm: number | undefined;
  readonly nonFinite: "skip" | "throw" | undefined;
  readonly #where: string;
  readonly #storage: Storage<P>;
  #norm: P | undefined;
  #failure: Error | undefined;
  #watched: Promise<void> = Promise.resolve();

  constructor(where: string, storage: Storage<P>, { maxGradNorm, nonFinite }: GradGuardOptions) {
    if (maxGradNorm !== undefined) checkNumber(where, "maxGradNorm", maxGradNorm, "a positive number", (x) => x > 0);
    if (nonFinite !== undefined) checkOneOf(where, "nonFinite", nonFinite, ["skip", "throw"]);
    this.maxGradNorm = maxGradNorm;
    this.nonFinite = nonFinite;
    this.#where = where;
    this.#storage = storage;
  }

  /** The options as JSON; those that weren't given are absent. */
  summary(): { maxGradNorm?: number | "Infinity"; nonFinite?: "skip" | "throw" } {
    const { maxGradNorm, nonFinite } = this;
    return {
      ...(maxGradNorm === undefined ? {} : { maxGradNorm: Number.isFinite(maxGradNorm) ? maxGradNorm : "Infinity" }),
      ...(nonFinite === undefined ? {} : { nonFinite }),
    };
  }

  get measures(): boolean {
    return this.maxGradNorm !== undefined || this.nonFinite !== undefined;
  }

  /**
   * What the gradients of a step are to be multiplied by, NaN if they aren't finite; null if nothing is measured. Call it inside of `run`. `step` gives
   * the number of the step for a message, `known` the norm where it needn't be measured.
   *
   * @throws {NonFiniteError} at once for typed arrays, if that was chosen
   */
  factor(grads: readonly P[], step: () => number, known?: number): P | null {
    if (!this.measures || grads.length === 0) {
      hostEffect(() => this.#forget());
      return null;
    }
    const norm = known === undefined ? this.#storage.globalNorm(grads) : this.#storage.scalar(known);
    const measured = this.#storage.alias(norm);
    hostEffect(
      () => {
        this.#forget();
        this.#norm = this.#storage.alias(measured);
        if (this.nonFinite === "throw") this.#watch(this.#norm, step());
      },
      () => this.#storage.dispose(measured),
    );
    return this.#storage.clipScale(norm, this.maxGradNorm ?? Number.POSITIVE_INFINITY);
  }

  #watch(norm: P, step: number): void {
    const check = (value: number) => {
      if (Number.isFinite(value)) return;
      throw new NonFiniteError(
        `[${this.#where}] the norm of the gradients was ${value} at step ${step}, which changed nothing. Lower the learning rate, or give nonFinite: "skip".`,
      );
    };
    if (ArrayBuffer.isView(norm)) {
      check(norm[0]!);
      return;
    }
    const checked = this.#storage.read(norm).then(check);
    // The first failure is kept for the next call; nobody else waits for it.
    this.#watched = Promise.all([this.#watched, checked.catch((error) => (this.#failure ??= error))]).then(() => {});
  }

  /** Throws what is known of earlier steps, once; for a captured step, before each replay. */
  throwFailure(): void {
    hostCheck(() => this.#throwFailure());
  }

  #throwFailure(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
  }

  /** Waits for the norms of all steps so far, and throws the failure of one of them that was not thrown yet. */
  async settled(): Promise<void> {
    await this.#watched;
    this.#throwFailure();
  }

  async norm(): Promise<number | undefined> {
    return this.#norm === undefined ? undefined : this.#storage.read(this.#norm);
  }

  #forget(): void {
    if (this.#norm) this.#storage.dispose(this.#norm);
    this.#norm = undefined;
  }

  dispose(): void {
    this.#forget();
  }
}

/** The norm in the options of a step. Refuses one that can't be one, or that the replays of a captured step would have in common. @internal */
export function knownNorm(where: string, options: StepOptions): number | undefined {
  checkKeys(`${where}.step`, options, ["gradNorm"]);
  const { gradNorm } = options;
  if (gradNorm === undefined) return undefined;
  if (typeof gradNorm !== "number" || gradNorm < 0) {
    throw new OptionError(
      `[${where}.step] gradNorm must be a number of at least 0, or NaN as that of gradients that aren't finite; received ${String(gradNorm)}.`,
    );
  }
  if (isCapturing()) {
    throw new OptionError(
      `[${where}.step] every replay of a captured step would take its gradients to have the norm ${gradNorm}; leave gradNorm out.`,
    );
  }
  return gradNorm;
}

/** Refuses an optimizer that clips by itself where the gradients of several are clipped together. @internal */
export function requireUnguarded(
  where: string,
  name: string,
  guard: Readonly<Pick<GradGuard<Parameter>, keyof GradGuardOptions>>,
): void {
  for (const key of ["maxGradNorm", "nonFinite"] as const) {
    if (guard[key] === undefined) continue;
    throw new OptionError(
      `[${where}] ${name} has ${key} ${String(guard[key])}, which would see its own gradients only; give ${key} to ${where}.`,
    );
  }
}
