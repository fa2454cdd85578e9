/**
 * What an optimizer is to its users, and the data that the fused ones hand from the base class to their kernels.
 */
import type { Operand } from "@llmeff/native";
import type { Tensor } from "@llmeff/tensor";
import type { GradGuardOptions } from "./grad-guard.js";
import type { ParameterFilter, ParamGroup, ResolvedGroup } from "./groups.js";
import type { StepHooks } from "./hooks.js";
import type { Shapes } from "./parameter-shapes.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { NumberSource } from "./step-numbers.js";
import type { Parameter, Storage } from "./storage.js";

export interface StepOptions {
  /**
   * Global norm of all gradients given, where it was measured already, as for the overflow of a scaled loss: it isn't measured again for `maxGradNorm` and
   * `nonFinite`. NaN or `Infinity` is that of gradients which aren't finite: such a step changes nothing. Not in a captured step, whose replays would all
   * have this one. Passed over where there is a `beforeStep` hook, which may change gradients also in place, or a gradient of a frozen parameter.
   */
  gradNorm?: number | undefined;
}

/** Changes parameters in place, step by step, given their gradients. */
export interface Optimizer<P extends Parameter = Tensor> {
  /** Steps taken so far. */
  readonly stepCount: number;
  /** The learning rate of the next step for parameters whose group has none of its own. Assign a number or a schedule to change it. */
  get learningRate(): number;
  set learningRate(value: ScalarOrSchedule);
  /** Groups in the order given, then the group of all other parameters. */
  readonly paramGroups: readonly ResolvedGroup<object>[];
  /** Functions that are called before and after each step. */
  readonly hooks: StepHooks<P>;
  /** Steps the parameters whose gradients are given; the others stay as they are. */
  step(grads: Readonly<Record<string, P>>, options?: StepOptions): void;
  /** Global norm of the last step's gradients before clipping; undefined unless `maxGradNorm` or `nonFinite` has it measured. Waits for that step. */
  gradNorm(): Promise<number | undefined>;
  /** With `nonFinite: "throw"`: waits for the norms of all steps so far, and rejects if one was not finite, once. Else there is nothing to wait for. */
  settled(): Promise<void>;
  /** What a continuation needs: the state arrays themselves (not copies) by name, and plain data. */
  stateDict(): OptimizerState<P>;
  /**
   * Continues from a saved state, bit by bit as if never interrupted. The arrays are copied from.
   *
   * @throws {FormatError} for a state of another optimizer or of other parameters, and for one that none can have: with a NaN or infinity, or, where a fused
   * optimizer sums squares, a negative number; nothing is changed then
   */
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
    /** Counts and other plain numbers in the state, named like the tensors; absent if there are none. */
    numbers?: Record<string, number>;
    /** For comparison: `loadStateDict` keeps the optimizer's own. */
    hyper?: HyperSummary;
  };
}

/** The hyper-parameters of an optimizer as JSON, but for learning rates, which may be functions. */
export interface HyperSummary {
  /** As given, or for a filter the names that it chose; where several optimizers step as one it is in the groups. */
  decay?: "all" | "matrices" | readonly string[];
  /** Absent if none was given. */
  maxGradNorm?: number | "Infinity";
  nonFinite?: "skip" | "throw";
  /** As in `paramGroups`; those that are undefined are absent. */
  groups: Record<string, number | string | boolean | readonly string[]>[];
}

/** Options that every fused optimizer takes beside its hyper-parameters. */
export interface CommonOptions<H> extends GradGuardOptions {
  /** Hyper-parameters of some parameters, by name pattern or test; the first match counts. */
  groups?: readonly ParamGroup<H>[];
  /**
   * Which parameters `weightDecay` is for. `"matrices"`: those with two or more axes (not norms and biases); or a filter, such as
   * `allOf(matrices, not(embeddings))`. Default `"all"`.
   */
  decay?: "all" | "matrices" | ParameterFilter;
  /** Shapes of typed arrays by name, where they matter (`decay`, SONew's `chain`, `order`, `vectors`); default: one axis. */
  shapes?: Shapes;
}

/** Parameters that are added to an optimizer, with their own hyper-parameters. */
export type NewGroup<P, H> = Partial<H> & {
  params: Readonly<Record<string, P>>;
  frozen?: boolean;
  shapes?: Shapes;
};

/** The hyper-parameters that the base class itself reads. */
export interface CommonHyper {
  learningRate: ScalarOrSchedule;
  weightDecay: number;
}

/** Named state arrays and numbers. */
export interface StateHolder<P> {
  readonly name: string;
  readonly state: Readonly<Record<string, P>>;
  readonly numbers: Record<string, number>;
}

/** One parameter and its state. */
export interface Slot<P> extends StateHolder<P> {
  readonly param: P;
  readonly shape: readonly number[];
  /** Elements of each state array when it was made. */
  readonly sizes: Readonly<Record<string, number>>;
  /** Whether its group's `weightDecay` is for it. */
  readonly decays: boolean;
  steps: number;
}

/** Makes the state of a parameter; `param` is what is stepped, the float32 master if there is one. */
export type MakeState<P extends Parameter, H> = (
  storage: Storage<P>,
  slot: { readonly name: string; readonly param: P; readonly shape: readonly number[] },
  hyper: H,
) => { state: Record<string, P>; numbers: Record<string, number> };

/** What a kernel steps: the parameter, or its float32 master. */
export const stepped = <P>(slot: Slot<P>): P => slot.state.master ?? slot.param;
/** What the kernel writes the rounded masters to; none if there are none. */
export const roundings = <P>(slots: readonly Slot<P>[]): P[] =>
  slots.filter((slot) => slot.state.master !== undefined).map((slot) => slot.param);

/** Slots with one set of hyper-parameters and one step number: what a kernel is called for. */
export interface Bucket<P, H> extends NumberSource<H> {
  readonly slots: readonly Slot<P>[];
  readonly grads: readonly P[];
  readonly group: ResolvedGroup<H>;
  /** The group's, with the `weightDecay` of these slots. The learning rate is that of `now` and `scalars`. */
  readonly hyper: H;
  /** What the gradients are to be multiplied by: 1 or what clips them, and NaN if the step is to change nothing. Null: neither. */
  readonly gradFactor: P | null;
  /** `gradFactor` for a kernel. */
  readonly gradScale: Operand | null;
}
