/**
 * What an optimizer is to its users, and the data that the fused ones hand from the base class to their kernels.
 */
import type { Operand, Scalar } from "@llmeff/native";
import type { Tensor } from "@llmeff/tensor";
import type { ParamGroup, ResolvedGroup } from "./groups.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";

/** Changes parameters in place, step by step, given their gradients. */
export interface Optimizer<P extends Parameter = Tensor> {
  /** Steps taken so far. */
  readonly stepCount: number;
  /** The learning rate of the next step for parameters whose group has none of its own. Assign a number or a schedule to change it. */
  get learningRate(): number;
  set learningRate(value: ScalarOrSchedule);
  /** Groups in the order given, then the group of all other parameters. */
  readonly paramGroups: readonly ResolvedGroup<object>[];
  /** Steps the parameters whose gradients are given; the others stay as they are. */
  step(grads: Readonly<Record<string, P>>): void;
  /** Global norm of the last step's gradients before clipping; undefined unless `maxGradNorm` has it measured. Waits for that step. */
  gradNorm(): Promise<number | undefined>;
  /** What a continuation needs: the state arrays themselves (not copies) by name, and plain data. */
  stateDict(): OptimizerState<P>;
  /** Continues from a saved state, bit by bit as if never interrupted. The arrays are copied from. */
  loadStateDict(state: OptimizerState<P>): void;
  /** Bytes of all state arrays. */
  stateBytes(): number;
  /** Frees the state of an optimizer of tensors. */
  dispose(): void;
}

export interface OptimizerState<P extends Parameter> {
  /** `"<parameter>.<state>"`, such as `"wte.weight.m"`: ready for a safetensors file. */
  tensors: Record<string, P>;
  /** Goes through JSON unchanged. */
  meta: {
    optimizer: string;
    format: 1;
    stepCount: number;
    steps: Record<string, number>;
    /** For comparison: `loadStateDict` keeps the optimizer's own. */
    hyper?: HyperSummary;
  };
}

/** The hyper-parameters of an optimizer as JSON, but for learning rates, which may be functions. */
export interface HyperSummary {
  decay: "all" | "matrices";
  /** Absent if the norm isn't measured. */
  maxGradNorm?: number | "Infinity";
  /** As in `paramGroups`; those that are undefined are absent. */
  groups: Record<string, number | string | boolean | readonly string[]>[];
}

/** Options that every fused optimizer takes beside its hyper-parameters. */
export interface CommonOptions<H> {
  /** Hyper-parameters of some parameters, by name pattern or test; the first match counts. */
  groups?: readonly ParamGroup<H>[];
  /** `"matrices"`: weightDecay only of tensors with two or more axes (not norms and biases). Default `"all"`. */
  decay?: "all" | "matrices";
  /**
   * Scales all gradients so that their global norm is at most this. `Infinity` never scales, and still measures the norm and guards.
   * Absent: neither. The norm never leaves the device.
   *
   * A step with a NaN or infinite norm changes no parameter and no state array, and is counted like any other, because the host doesn't know of
   * it: the schedule goes on, and the bias corrections `1 − βᵗ` of later steps have a `t` that is larger by one. That matters among the
   * first steps only: with AdamW's defaults a skipped first step makes the second one's update 0.74 times as long, and the hundredth's 1.005 times.
   */
  maxGradNorm?: number;
  /** Shapes of typed arrays by name, where they matter (`decay`, SONew's `chain`, `order`, `vectors`); default: one axis. */
  shapes?: Readonly<Record<string, readonly number[]>>;
}

/** The hyper-parameters that the base class itself reads. */
export interface CommonHyper {
  learningRate: ScalarOrSchedule;
  weightDecay: number;
}

/** One parameter and its state. */
export interface Slot<P> {
  readonly name: string;
  readonly param: P;
  readonly shape: readonly number[];
  readonly state: Readonly<Record<string, P>>;
  steps: number;
}

/** What a kernel steps: the parameter, or its float32 master. */
export const stepped = <P>(slot: Slot<P>): P => slot.state.master ?? slot.param;
/** What the kernel writes the rounded masters to; none if there are none. */
export const roundings = <P>(slots: readonly Slot<P>[]): P[] =>
  slots.filter((slot) => slot.state.master !== undefined).map((slot) => slot.param);

/** Slots with one set of hyper-parameters and one step number: what a kernel is called for. */
export interface Bucket<P, H> {
  readonly slots: readonly Slot<P>[];
  readonly grads: readonly P[];
  readonly hyper: H;
  readonly learningRate: Scalar;
  /** 1-based. */
  readonly step: Scalar;
  readonly gradScale: Operand | null;
}
