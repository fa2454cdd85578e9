/**
 * The numbers in which steps differ, learning rate and count: as they are now, or in a captured step as they will be in each of its replays.
 */
import { OptionError, type Scalar } from "@llmeff/native";
import {
  currentRecording,
  hostCheck,
  hostNumber,
  isCapturing,
  type Recording,
  refuseWhileCapturing,
  scalarOf,
} from "@llmeff/tensor";

export interface StepNumbers {
  readonly learningRate: number;
  /** 1-based. */
  readonly step: number;
}

/** Where an optimizer's step gets its numbers from. */
export interface NumberSource<H> {
  /** The numbers of this step. @throws {CaptureError} in a captured step, each of whose replays has its own */
  now(): StepNumbers;
  /** Numbers for a kernel that depend on those of the step; 1-based `step`. In a captured step they are made anew for every replay. */
  scalars(compute: (hyper: H & { learningRate: number }, step: number) => readonly number[]): readonly Scalar[];
}

/** `numbers` gives those of the step whenever they are asked for, in a replay those of the replay. */
export function numberSource<H>(where: string, hyper: H, numbers: () => StepNumbers): NumberSource<H> {
  return {
    now() {
      refuseWhileCapturing(
        `${where}.step`,
        "what it computes depends on numbers of the host, which a replay would not see change",
        "Return the gradients from the captured step, and step outside.",
      );
      return numbers();
    },
    scalars(compute) {
      const make = () => {
        const { learningRate, step } = numbers();
        return compute({ ...hyper, learningRate }, step);
      };
      let made = make();
      if (!isCapturing()) return made;
      return made.map((_, i) => {
        const number = hostNumber(() => {
          if (i === 0) made = make(); // asked for first, for all
          return made[i]!;
        });
        return scalarOf(where, number);
      });
    },
  };
}

/** A parameter that counts its steps. */
interface Counted {
  readonly name: string;
  readonly steps: number;
}

/** Steps of an optimizer that a replay will have taken before the one that is being captured, when a captured step takes several. */
export class StepsAhead {
  readonly #taken = new WeakMap<Recording, { steps: number; of: Map<Counted, number> }>();

  /** Of the optimizer. Outside of captures 0, as for a parameter. */
  get steps(): number {
    return this.#current?.steps ?? 0;
  }

  of(counted: Counted): number {
    return this.#current?.of.get(counted) ?? 0;
  }

  /** A step of these has been captured, if a capture is under way. */
  count(all: readonly Counted[]): void {
    const recording = currentRecording();
    if (recording === undefined) return;
    const { steps, of } = this.#current ?? { steps: 0, of: new Map<Counted, number>() };
    for (const counted of all) of.set(counted, (of.get(counted) ?? 0) + 1);
    this.#taken.set(recording, { steps: steps + 1, of });
  }

  /** The count of the next step of those that are at one step, when it is taken. */
  next(where: string, all: readonly Counted[]): () => number {
    const ahead = all.map((counted) => this.of(counted) + 1);
    const at = (i: number) => all[i]!.steps + ahead[i]!;
    return () => {
      const other = all.findIndex((_, i) => at(i) !== at(0));
      if (other < 0) return at(0);
      throw new OptionError(
        `[${where}.step] "${all[0]!.name}" has taken ${at(0) - 1} steps and "${all[other]!.name}" ${at(other) - 1}; they were captured at one step. Capture the step again.`,
      );
    };
  }

  get #current() {
    const recording = currentRecording();
    return recording === undefined ? undefined : this.#taken.get(recording);
  }
}

/** Has the replays of a captured step refused when hyper-parameters beside learning rates are no longer those that its kernels were captured with. */
export function requireSameHyper(where: string, groups: readonly object[]): void {
  if (!isCapturing()) return;
  for (const [i, group] of groups.entries()) {
    const captured = withoutRate(group);
    hostCheck(() => {
      const now = withoutRate(group);
      const changed = Object.keys({ ...captured, ...now }).find((key) => !Object.is(captured[key], now[key]));
      if (changed === undefined) return;
      throw new OptionError(
        `[${where}.step] ${changed} of paramGroups[${i}] was ${String(captured[changed])} when the step was captured and is ${String(now[changed])}. Capture the step again.`,
      );
    });
  }
}

function withoutRate(group: object): Record<string, unknown> {
  const { learningRate: _, ...rest } = group as Record<string, unknown>;
  return rest;
}

/** Refuses what changes an optimizer on the host, which a replay would not do again. */
export function refuseChange(where: string): void {
  refuseWhileCapturing(
    where,
    "it changes what is kept on the host, which a replay would not do again",
    "Call it outside.",
  );
}
