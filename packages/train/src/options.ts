/** The options of `train`, and their check. */
import type { BatchSource, JsonObject } from "@llmeff/data";
import type { Optimizer, Steppable } from "@llmeff/optim";
import { type HostNumber, OptionError, Tensor } from "@llmeff/tensor";
import { type LossScaleOptions, LossScaler } from "./loss-scale.js";

/** One micro-batch, on the device of the parameters. */
export interface TrainBatch {
  /** int32 `[B, T]` */
  tokens: Tensor;
  /** int32 `[B, T]`; -100 where there is no loss. */
  targets: Tensor;
  /** The batch's further arrays by name, int32 or float32; none for most sources. */
  extras: Readonly<Record<string, Tensor>>;
}

/** Keys for random numbers inside an objective: the same in an interrupted and in an uninterrupted run. */
export interface ObjectiveContext {
  seed: number;
  /** From 1. @throws {CaptureError} when the step is captured, in whose replays it would stay as it is: use `stream` or `byStep` */
  readonly step: number;
  /** A number that depends on the step, which also replays of a captured step take anew: `full([], context.byStep(weightAt))`. */
  byStep(numberAt: (step: number) => number): HostNumber;
  /** What the objective's `stageAt` says of this step; `""` without it. */
  stage: string;
  /** From 0. */
  microBatch: number;
  /** Another one for each micro-batch of each step: the stream of a key, `dropout(x, 0.1, { seed, stream })`. */
  stream: HostNumber;
  /** Tells a tensor of this step beside the loss, without a gradient: the sums over its micro-batches go to `modelState`. */
  collect(name: string, value: Tensor): void;
}

/** Tensors that gradients don't change but a rule of their own does after each step, such as the biases of a mixture's routers. */
export interface ModelState {
  /** By names that no parameter has. Checkpoints hold them beside the parameters. */
  tensors: Record<string, Tensor>;
  /**
   * Changes `tensors` in place after a step that changed the parameters.
   *
   * @param collected - what the objective collected, summed over the step's micro-batches
   */
  update(collected: Readonly<Record<string, Tensor>>, step: number): void;
}

/** The loss of a micro-batch: a tensor with one element, the mean over the valid targets. */
export interface Objective {
  (params: Record<string, Tensor>, batch: TrainBatch, context: ObjectiveContext): Tensor;
  /**
   * Names the stage of a step, for objectives that compute something else from some step on. It must depend on the step alone, so that a
   * resumed run finds its stage; captured steps are captured again where it changes.
   */
  stageAt?(step: number): string;
}

export interface EvaluateContext {
  step: number;
  params: Record<string, Tensor>;
  signal: AbortSignal | undefined;
}

export interface CheckpointOptions {
  /** Made if it is missing. One run at a time. */
  directory: string;
  /** Steps between checkpoints; default only at the end (and when aborted). */
  every?: number;
  /** Older ones are removed; default 3. */
  keepLast?: number;
  /** Write a checkpoint after every evaluation whose metric is the best so far, and keep the best one however old it is; see `bestCheckpoint`. */
  best?: {
    /** One of those that `evaluate` returns. */
    metric: string;
    /** The higher the better; default false. */
    highest?: boolean;
  };
}

/** With the defaults filled in. */
export type ResolvedCheckpointOptions = Required<Omit<CheckpointOptions, "best">> & Pick<CheckpointOptions, "best">;

export interface TrainOptions {
  /** Parameters by name; changed in place by the optimizer. Training runs where they are, on the CPU or a GPU. */
  params: Record<string, Tensor>;
  objective: Objective;
  /** Made for the same tensors as `params`, under the same names. */
  optimizer: Optimizer;
  data: BatchSource;
  /** What else a step changes, and a checkpoint holds. */
  modelState?: ModelState;
  /** For the utilization of the device that step events tell: operations of a step per token, and those that the device can do in a second. */
  utilization?: { flopsPerToken: number; peakFlops: number };
  /** Optimizer steps in all, those before a resume included. */
  steps: number;
  /** Micro-batches a step; default 1. */
  gradientAccumulation?: number;
  /**
   * Computes losses and gradients in captured steps, see `captureStep` of @llmeff/tensor: the same bits in less time where the GPU would wait for
   * JavaScript. The objective is then called for three steps only, so it must do the same each time, and takes its random numbers by
   * `context.stream`. Steps whose batches have another shape than the first, or micro-batches without targets, run uncaptured. Default false.
   */
  captureStep?: boolean;
  /**
   * Scales the losses that gradients are taken of, and the gradients back in float32, so that those of float16 don't vanish. A step whose gradients
   * overflow changes nothing, the optimizer's counts included, and lowers the scale. Default: where a parameter is float16. `false` turns it off.
   */
  lossScale?: boolean | LossScaleOptions;
  evaluate?: (context: EvaluateContext) => Promise<Record<string, number>> | Record<string, number>;
  /** Steps between evaluations; the last step is evaluated in any case. Default only the last. */
  evaluateEvery?: number;
  /** Ends the run early, after an evaluation. */
  stopWhen?: (metrics: Readonly<Record<string, number>>) => boolean;
  checkpoint?: CheckpointOptions;
  /**
   * Continue from the newest valid checkpoint of the directory, or start if there is none yet; default false. All that decides a step's numbers
   * must be as it was, but for the learning rate.
   */
  resume?: boolean;
  /** Key of all randomness in the objective; stored and checked on resume. Default 0. */
  seed?: number;
  /** Kept in every checkpoint for whoever reads it; neither interpreted nor compared on resume. */
  config?: JsonObject;
  /** Steps in a row that an optimizer may skip for a non-finite gradient norm before the run fails; default 10. */
  maxSkippedSteps?: number;
  /** The current step is finished, a checkpoint written, then the run throws the signal's reason. */
  signal?: AbortSignal;
  /** Milliseconds from any origin; default `performance.now`. */
  clock?: () => number;
}

export type ResolvedTrainOptions = Omit<TrainOptions, "checkpoint" | "lossScale"> & {
  checkpoint: ResolvedCheckpointOptions | undefined;
  lossScale: LossScaleOptions | undefined;
} & Required<Pick<TrainOptions, (typeof defaulted)[number]>>;

const defaulted = [
  "gradientAccumulation",
  "evaluateEvery",
  "resume",
  "seed",
  "config",
  "maxSkippedSteps",
  "captureStep",
  "clock",
] as const;

const keys: Record<keyof TrainOptions, true> = {
  params: true,
  objective: true,
  optimizer: true,
  data: true,
  modelState: true,
  utilization: true,
  steps: true,
  gradientAccumulation: true,
  captureStep: true,
  lossScale: true,
  evaluate: true,
  evaluateEvery: true,
  stopWhen: true,
  checkpoint: true,
  resume: true,
  seed: true,
  config: true,
  maxSkippedSteps: true,
  signal: true,
  clock: true,
};
const checkpointKeys: Record<keyof CheckpointOptions, true> = {
  directory: true,
  every: true,
  keepLast: true,
  best: true,
};

/** Fills in the defaults. @throws {OptionError} naming the option, what it must be and what came */
export function resolveOptions(options: TrainOptions): ResolvedTrainOptions {
  requireObject("options", options);
  requireKnown("", options, keys);
  const { params, objective, optimizer, data, steps, evaluate, stopWhen, checkpoint, signal } = options;
  requireParams(params);
  requireFunction("objective", objective);
  requireMethods("optimizer", optimizer, ["step", "stateDict", "loadStateDict"], "Use one of @llmeff/optim.");
  requireOptimizerOf(params, optimizer);
  requireMethods("data", data, ["next", "state", "restore"], "Use a BatchSource of @llmeff/data.");
  requireModelState(options);
  requireUtilization(options.utilization);
  requirePositive("steps", steps);
  const { gradientAccumulation = 1, evaluateEvery = steps, resume = false, seed = 0, config = {} } = options;
  const { maxSkippedSteps = 10, captureStep = false, clock = () => performance.now() } = options;
  requirePositive("gradientAccumulation", gradientAccumulation);
  requirePositive("evaluateEvery", evaluateEvery);
  requirePositive("maxSkippedSteps", maxSkippedSteps);
  requireFunction("clock", clock);
  if (!Number.isSafeInteger(seed)) throw new OptionError(`[train] seed must be an integer; received ${show(seed)}.`);
  if (evaluate !== undefined) requireFunction("evaluate", evaluate);
  if (stopWhen !== undefined) requireFunction("stopWhen", stopWhen);
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError(`[train] signal must be an AbortSignal; received ${show(signal)}.`);
  }
  if (stopWhen !== undefined && evaluate === undefined) {
    throw new OptionError("[train] stopWhen judges what evaluate measures; received stopWhen without evaluate.");
  }
  requireJson("config", config);
  if (typeof captureStep !== "boolean")
    throw new OptionError(`[train] captureStep must be true or false; received ${show(captureStep)}.`);
  if (typeof resume !== "boolean")
    throw new OptionError(`[train] resume must be true or false; received ${show(resume)}.`);
  if (resume && checkpoint === undefined) {
    throw new OptionError("[train] resume needs checkpoint: { directory } to know what to resume from.");
  }
  return {
    ...options,
    ...{ gradientAccumulation, evaluateEvery, resume, seed, config, maxSkippedSteps, captureStep, clock },
    lossScale: resolveLossScale(options),
    checkpoint: checkpoint === undefined ? undefined : resolveCheckpoint(checkpoint, steps, evaluate !== undefined),
  };
}

function resolveLossScale({ params, lossScale }: TrainOptions): LossScaleOptions | undefined {
  const wanted = lossScale ?? Object.values(params).some(({ dtype }) => dtype === "float16");
  if (typeof wanted === "boolean") return wanted ? {} : undefined;
  requireObject("lossScale", wanted);
  return new LossScaler(wanted) && wanted;
}

function resolveCheckpoint(
  checkpoint: CheckpointOptions,
  steps: number,
  evaluates: boolean,
): ResolvedCheckpointOptions {
  requireObject("checkpoint", checkpoint);
  requireKnown("checkpoint.", checkpoint, checkpointKeys);
  const { directory, every = steps, keepLast = 3, best } = checkpoint;
  if (typeof directory !== "string" || directory === "") {
    throw new OptionError(`[train] checkpoint.directory must be a path; received ${show(directory)}.`);
  }
  requirePositive("checkpoint.every", every);
  requirePositive("checkpoint.keepLast", keepLast);
  if (best === undefined) return { directory, every, keepLast };
  requireObject("checkpoint.best", best);
  if (typeof best.metric !== "string" || best.metric === "") {
    throw new OptionError(
      `[train] checkpoint.best.metric must be the name of a metric; received ${show(best.metric)}.`,
    );
  }
  if (!evaluates) {
    throw new OptionError("[train] checkpoint.best judges what evaluate measures; received best without evaluate.");
  }
  return { directory, every, keepLast, best };
}

function requireParams(params: unknown): void {
  requireTensors("params", params);
  if (Object.keys(params as object).length === 0)
    throw new OptionError("[train] params must hold at least one tensor; received an empty record.");
}

function requireTensors(where: string, tensors: unknown): void {
  requireObject(where, tensors);
  for (const [name, value] of Object.entries(tensors as object)) {
    if (!(value instanceof Tensor))
      throw new OptionError(`[train] ${where}["${name}"] must be a Tensor; received ${show(value)}.`);
    if (name === "__metadata__") {
      throw new OptionError(
        `[train] ${where} must have names that a checkpoint can hold; received "__metadata__", which safetensors keeps for itself. Rename it.`,
      );
    }
  }
}

/** Refuses an optimizer of other tensors, which would train these never. Those of @llmeff/optim tell theirs. */
function requireOptimizerOf(params: TrainOptions["params"], optimizer: Optimizer): void {
  const { params: stepped } = optimizer as Partial<Steppable<Tensor>>;
  if (typeof stepped !== "object" || stepped === null) return;
  for (const [name, param] of Object.entries(params)) {
    if (Object.hasOwn(stepped, name) && stepped[name] === param) continue;
    const received = Object.hasOwn(stepped, name) ? `one whose "${name}" is another tensor` : `one without "${name}"`;
    throw new OptionError(
      `[train] optimizer must be made for the tensors of params; received ${received}. Give both the same record.`,
    );
  }
}

function requireModelState({ params, modelState }: TrainOptions): void {
  if (modelState === undefined) return;
  requireMethods("modelState", modelState, ["update"], "See ModelState.");
  requireTensors("modelState.tensors", modelState.tensors);
  const both = Object.keys(modelState.tensors).find((name) => Object.hasOwn(params, name));
  if (both === undefined) return;
  throw new OptionError(`[train] modelState.tensors must have names of their own; received "${both}", a parameter's.`);
}

function requireUtilization(utilization: TrainOptions["utilization"]): void {
  if (utilization === undefined) return;
  requireObject("utilization", utilization);
  for (const name of ["flopsPerToken", "peakFlops"] as const) {
    const value = utilization[name];
    if (!(value > 0 && Number.isFinite(value)))
      throw new OptionError(`[train] utilization.${name} must be a positive number; received ${show(value)}.`);
  }
}

function requireKnown(prefix: string, given: object, known: Record<string, true>): void {
  const unknown = Object.keys(given).filter((key) => !Object.hasOwn(known, key));
  if (unknown.length > 0) {
    throw new OptionError(
      `[train] there is no option ${unknown.map((key) => `"${prefix}${key}"`).join(", ")}. Options: ${Object.keys(known).join(", ")}.`,
    );
  }
}

function requirePositive(name: string, value: unknown): void {
  if (!Number.isSafeInteger(value) || (value as number) < 1) {
    throw new OptionError(`[train] ${name} must be a positive integer; received ${show(value)}.`);
  }
}

function requireFunction(name: string, value: unknown): void {
  if (typeof value !== "function")
    throw new OptionError(`[train] ${name} must be a function; received ${show(value)}.`);
}

function requireObject(name: string, value: unknown): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new OptionError(`[train] ${name} must be an object; received ${show(value)}.`);
  }
}

function requireJson(name: string, value: unknown): void {
  requireObject(name, value);
  try {
    JSON.stringify(value);
  } catch (cause) {
    throw new OptionError(`[train] ${name} must go through JSON: ${(cause as Error).message.split("\n")[0]}.`, {
      cause,
    });
  }
}

function requireMethods(name: string, value: unknown, methods: readonly string[], advice: string): void {
  requireObject(name, value);
  const missing = methods.filter((method) => typeof (value as Record<string, unknown>)[method] !== "function");
  if (missing.length > 0) {
    throw new OptionError(
      `[train] ${name} must have the methods ${methods.join(", ")}; it lacks ${missing.join(", ")}. ${advice}`,
    );
  }
}

/** A value in a message: short, and never throwing. */
function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") return "a function";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object" && value !== null) return `an object of ${value.constructor?.name ?? "no class"}`;
  return String(value);
}
