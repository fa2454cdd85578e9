/** What a step that is being captured may do, and what becomes of its numbers and effects on the host when it is replayed. */
import { CaptureError, OptionError, type Scalar } from "@llmeff/native";

/** A number that a captured step is given anew in every replay. Its value is nobody's business before: it has no arithmetic. */
export class ReplayedNumber {
  constructor(
    /** @internal */
    readonly recording: Recording,
    /** Among the numbers of a replay. @internal */
    readonly position: number,
  ) {}

  /** Has every value of it checked before a replay. @internal */
  check(checkValue: (value: number) => void): void {
    const { providers } = this.recording;
    const provide = providers[this.position]!;
    providers[this.position] = () => {
      const value = provide();
      checkValue(value);
      return value;
    };
  }

  /** @internal */
  valueOf(): never {
    throw new CaptureError(
      "[hostNumber] inside of a captured step the number has no value yet. Compute within the function: hostNumber(() => 2 * x).",
    );
  }
}

/** What `hostNumber` gives: outside of captured steps a number. */
export type HostNumber = number | ReplayedNumber;

/** The capture of one step, from its beginning to the end of the captured step. */
export class Recording {
  /** What each replay asks for its numbers, in order. */
  readonly providers: (() => number)[] = [];
  /** What is looked at before each replay. */
  readonly checks: (() => void)[] = [];
  readonly effects: (() => void)[] = [];
  readonly disposals: (() => void)[] = [];
  /** Where calls were made that may fail on their values, by ticket. */
  readonly sites = new Map<number, Error>();
  /** What can't be captured, though the step may have caught it. */
  problem: unknown;
}

let current: Recording | undefined;

/** The capture that is under way. */
export function currentRecording(): Recording | undefined {
  return current;
}

/** Runs a step that is to be captured. */
export function withRecording<R>(recording: Recording, fn: () => R): R {
  current = recording;
  try {
    return fn();
  } finally {
    current = undefined;
  }
}

/** Whether a step is being captured: what is computed now will be computed in each of its replays, when this code doesn't run. */
export function isCapturing(): boolean {
  return current !== undefined;
}

/**
 * A number of the host that changes from step to step: a learning rate, a step's stream of random numbers. Outside of captured steps it is what
 * the function gives. Inside, the function is called before each replay, in the order of the calls, and the operations that take the number
 * (`full`, `fill`, the keys of `dropout`, `randomUniform` and `randomNormal`, the optimizers) get the new one.
 *
 * @throws whatever `compute` throws, at a replay from the captured step: then nothing of the replay happens
 *
 * @example
 * let step = 0;
 * const noisy = captureStep(({ x }) => dropout(x, 0.1, { seed: 1, stream: hostNumber(() => step) }), { inputs: { x } });
 */
export function hostNumber(compute: () => number): HostNumber {
  if (current === undefined) return checked(compute());
  return new ReplayedNumber(current, current.providers.push(() => checked(compute())) - 1);
}

function checked(value: unknown): number {
  if (typeof value === "number") return value;
  throw new OptionError(`[hostNumber] the function must return a number; received ${typeof value}.`);
}

/**
 * Looks at something on the host that forbids a step, and throws then: at once; in a captured step before each replay instead, of which nothing
 * happens if it throws.
 */
export function hostCheck(check: () => void): void {
  if (current === undefined) check();
  else current.checks.push(check);
}

/**
 * Does what a step does on the host beside its operations, such as counting: at once; in a captured step after each replay has been queued
 * instead. `dispose` is called when nothing of this can happen any more.
 */
export function hostEffect(effect: () => void, dispose: () => void = () => undefined): void {
  if (current === undefined) {
    try {
      effect();
    } finally {
      dispose();
    }
    return;
  }
  current.effects.push(effect);
  current.disposals.push(dispose);
}

/** A number as the engine takes it. @throws {CaptureError} for one of another captured step @internal */
export function scalarOf(where: string, value: HostNumber): Scalar {
  if (typeof value === "number") return value;
  if (value.recording === current) return BigInt(value.position);
  throw new CaptureError(`[${where}] the number comes from another captured step. Call hostNumber inside of this one.`);
}

/** Refuses what would not happen again in a replay, and with it the capture. @internal */
export function refuseWhileCapturing(where: string, why: string, advice: string): void {
  if (current === undefined) return;
  const error = new CaptureError(`[${where}] can't be part of a captured step: ${why}. ${advice}`);
  current.problem ??= error;
  throw error;
}

const readAdvice = "Return the tensor from the step, and read it outside.";

/** @internal */
export function refuseReading(where: string): void {
  refuseWhileCapturing(where, "it waits for values, and nothing is computed while a step is captured", readAdvice);
}

/** @internal */
export function refuseUpload(where: string): void {
  const why = "it takes values from JavaScript, which a replay would not see change";
  refuseWhileCapturing(
    where,
    why,
    "Make the tensor outside, or let it be an input; numbers: full(shape, hostNumber(…)).",
  );
}

/** @internal */
export function refuseTransfer(where: string): void {
  refuseWhileCapturing(where, "it moves values between devices", "Move the tensor outside of the step.");
}
