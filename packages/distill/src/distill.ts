/**
 * SALT (arXiv:2410.18779): a student learns from a smaller teacher for the first part of its run, then from the text alone. One run, one optimizer, one
 * schedule; only the loss changes, `(1 − ω) · CE + ω · KD` with an ω that depends on the step.
 */
import { streamNumberOf } from "@llmeff/data";
import {
  add,
  concat,
  detach,
  full,
  type HostNumber,
  linearCrossEntropyParts,
  mul,
  noGrad,
  OptionError,
  slice,
  type Tensor,
  zeros,
  zerosLike,
} from "@llmeff/tensor";
import type { Objective, ObjectiveContext, TrainBatch } from "@llmeff/train";
import { checkTemperatures, type DistillationParts, linearDistillationParts } from "./distillation-loss.js";
import { checkDivergence, type Divergence, needsFullSupport } from "./divergences.js";
import { type BlockOutputs, HiddenStateLoss, type HiddenStateOptions } from "./hidden-state-loss.js";
import { type DistillMetrics, MetricsBoard, timed, totalOf } from "./metrics.js";
import { knowledgeBy, type Parameters, type Teacher, type TokenModel, trainedStates } from "./model.js";
import { checkSchedule, type OmegaSchedule, omegaAt } from "./schedule.js";
import { checkSparseMode, type SparseMode, type SparseTarget } from "./sparse.js";
import { sparseTargets } from "./sparse-targets.js";
import type { DistillTarget, TeacherScores } from "./targets.js";

/** Names of a batch's extra arrays that hold a teacher's cached predictions. */
export const cacheExtras = { ids: "teacherIds", logProbs: "teacherLogProbs", tailLogProb: "teacherTail" } as const;

export interface DistillOptions {
  student: TokenModel;
  /** Computed in every step that it has a weight in; several are averaged by their probabilities. */
  teacher?: Teacher | readonly Teacher[];
  /** Instead of a teacher: what `withTeacherCache` adds to the batches. */
  cache?: boolean;
  /** ω; default 0.667, the paper's. */
  omega?: number;
  /** When ω counts. */
  schedule: OmegaSchedule;
  /** Default 0.25, the paper's: a sharpened teacher. 1 for the modes naive, tail and sampled. */
  tauTeacher?: number;
  /** Default 1. */
  tauStudent?: number;
  /** Default false: SALT has no τ² factor. */
  temperatureSquared?: boolean;
  /** Default soft cross-entropy. */
  divergence?: Divergence;
  /** Of a cache, or a teacher with `k`; default `"renorm"`. */
  mode?: SparseMode;
  /** Learn from so many of the teacher's tokens in each row only, its likeliest or, in the mode `"sampled"`, drawn ones; default all of its scores. */
  k?: number;
  /** Match inner blocks of the teacher too, of which there must be one: `ω · weight · loss` is added. Default none. */
  hiddenStates?: HiddenStateOptions;
  /** Let the student have more tokens than the teacher, which get probability 0; default false. */
  vocabPad?: boolean;
  /** Called once when the teacher isn't needed any more, in the first step without a weight after which none has one: free its parameters here. */
  releaseTeacher?: () => void;
  /** Most logits of a block; see `distillationLoss`. */
  blockElements?: number;
}

/** An objective for `train` of @llmeff/train. */
export interface DistillObjective extends Objective {
  stageAt(step: number): "distill" | "plain";
  /** Of the last step; undefined before the first. */
  metrics(): Promise<DistillMetrics | undefined>;
  /** Frees what `metrics` reads. */
  dispose(): void;
}

/**
 * The objective of a run with a teacher. A step whose weight is exactly 0 computes the plain cross-entropy, bit for bit, and no teacher.
 *
 * @throws {OptionError} for an option outside its domain, or neither or both of teacher and cache
 *
 * @example
 * const objective = distill({ student: tokenModel(large), teacher: { model: tokenModel(small), params }, schedule: { kind: "step", steps: 36_000 } });
 * for await (const event of train({ params, objective, optimizer, data, steps: 208_000 })) console.log(await objective.metrics());
 */
export function distill(options: DistillOptions): DistillObjective {
  const distiller = new Distiller(options);
  const objective: Objective = (params, batch, context) => distiller.loss(params, batch, context);
  return Object.assign(objective, {
    stageAt: (step: number) => distiller.stageAt(step),
    metrics: () => distiller.board.read(),
    dispose: () => distiller.board.dispose(),
  });
}

type Optional = "releaseTeacher" | "blockElements" | "k";

type Resolved = Required<Omit<DistillOptions, "teacher" | "cache" | "hiddenStates" | Optional>> &
  Pick<DistillOptions, Optional> & { teachers: readonly Teacher[]; hiddenStates: HiddenStateLoss | undefined };

/** What the teachers, or their cache, say of a batch. */
interface Knowledge {
  target: DistillTarget;
  blocks: BlockOutputs;
}

class Distiller {
  readonly board: MetricsBoard;
  readonly #options: Resolved;
  #released = false;

  constructor(options: DistillOptions) {
    this.#options = resolve(options);
    this.board = new MetricsBoard(this.#options.hiddenStates !== undefined);
  }

  /** `step` from 1, as `train` counts; the schedule counts from 0. */
  stageAt(step: number): "distill" | "plain" {
    return this.#omegaAt(step) === 0 ? "plain" : "distill";
  }

  loss(params: Parameters, batch: TrainBatch, context: ObjectiveContext): Tensor {
    return context.stage === "plain" ? this.#plain(params, batch, context) : this.#distilled(params, batch, context);
  }

  #omegaAt(step: number): number {
    const { omega, schedule } = this.#options;
    return omegaAt(step - 1, omega, schedule);
  }

  #plain(params: Parameters, batch: TrainBatch, context: ObjectiveContext): Tensor {
    this.#release();
    const { student } = this.#options;
    const { softcap = 0 } = student;
    const { hidden, balanced } = trainedStates(student, params, batch, context);
    const parts = linearCrossEntropyParts(hidden, student.outputWeight(params), batch.targets, { softcap });
    const { ce, count } = parts;
    const none = (n: number) => zeros([n], { dtype: ce.dtype, device: ce.device });
    const sums = concat([mul(ce, count).reshape([1]), none(4), count.reshape([1]), none(1)]);
    this.board.omega = 0;
    this.board.record(context.microBatch, () => context.step, { sums, teacherMs: undefined });
    return balanced(parts.loss);
  }

  #distilled(params: Parameters, batch: TrainBatch, context: ObjectiveContext): Tensor {
    const { device } = batch.tokens;
    const { result: known, ms } = timed(device, () => noGrad(() => this.#knowledge(batch, context)));
    const times = ms === undefined ? [] : [ms];
    const omega = context.byStep((step) => {
      this.board.omega = this.#omegaAt(step);
      return this.board.omega;
    });
    const rest = context.byStep((step) => 1 - this.#omegaAt(step));
    const { student, hiddenStates } = this.#options;
    const {
      hidden,
      balanced,
      blocks = {},
    } = trainedStates(student, params, batch, context, hiddenStates?.studentBlocks);
    const weights = { ceWeight: rest, kdWeight: omega };
    const { loss, sums } = this.#parts(hidden, params, batch, known.target, weights, (ms) => times.push(ms));
    const matched = hiddenStates?.of(params, blocks, known.blocks, batch.targets);
    this.board.record(context.microBatch, () => context.step, {
      sums: withDistance(sums, matched),
      teacherMs: ms && totalOf(times),
    });
    if (matched === undefined) return balanced(loss);
    const share = full([], omega, { dtype: loss.dtype, device });
    return balanced(add(loss, mul(mul(matched.astype(loss.dtype), hiddenStates!.weight), share)));
  }

  #parts(
    hidden: Tensor,
    params: Parameters,
    batch: TrainBatch,
    target: DistillTarget,
    weights: { ceWeight: HostNumber; kdWeight: HostNumber },
    onTeacherTime: (milliseconds: Promise<number>) => void,
  ): DistillationParts {
    const { student, divergence, mode, tauStudent, tauTeacher, temperatureSquared, vocabPad, blockElements } =
      this.#options;
    const { softcap = 0 } = student;
    return linearDistillationParts(hidden, student.outputWeight(params), target, {
      labels: batch.targets,
      onTeacherTime,
      ...weights,
      ...{ divergence, mode, tauStudent, tauTeacher, temperatureSquared, vocabPad, softcap },
      ...(blockElements !== undefined && { blockElements }),
    });
  }

  #knowledge(batch: TrainBatch, context: ObjectiveContext): Knowledge {
    const { teachers, hiddenStates } = this.#options;
    if (teachers.length === 0) return { target: this.#cached(batch), blocks: {} };
    const known = teachers.map((teacher) => knowledgeBy(teacher, batch, hiddenStates?.teacherBlocks ?? []));
    const scores = known.map((one) => one.scores);
    const target = this.#options.k === undefined ? { teachers: scores } : this.#fewOf(scores, this.#options.k, context);
    return { target, blocks: known[0]!.blocks };
  }

  #fewOf(scores: readonly TeacherScores[], k: number, { seed, microBatch, byStep }: ObjectiveContext): SparseTarget {
    const { mode, blockElements } = this.#options;
    const size = blockElements === undefined ? {} : { blockElements };
    if (mode !== "sampled") return sparseTargets(scores, { k, tail: mode === "tail", ...size });
    const stream = byStep((step) => streamNumberOf(`distill/draws/${microBatch}`, step));
    return sparseTargets(scores, { k, draws: { seed, stream }, ...size });
  }

  #cached(batch: TrainBatch): SparseTarget {
    const { mode } = this.#options;
    const {
      [cacheExtras.ids]: ids,
      [cacheExtras.logProbs]: logProbs,
      [cacheExtras.tailLogProb]: tailLogProb,
    } = batch.extras;
    if (ids === undefined) {
      throw new OptionError(
        "[distill] cache: true needs batches with teacherIds. Wrap the source in withTeacherCache.",
      );
    }
    if (mode === "sampled") return { ids };
    return { ids, ...(logProbs && { logProbs }), ...(tailLogProb && { tailLogProb }) };
  }

  #release(): void {
    const { schedule, releaseTeacher } = this.#options;
    // A weight of 0 is the last word of every schedule but one that is 0 throughout.
    if (this.#released || schedule.kind === "always") return;
    this.#released = true;
    releaseTeacher?.();
  }
}

/** The sums of a step with the distance of its inner blocks, times the rows that count. */
function withDistance(sums: Tensor, distance: Tensor | undefined): Tensor {
  const rows = slice(sums, 0, 5, 6);
  return concat([sums, distance ? mul(detach(distance).astype(sums.dtype), rows) : zerosLike(rows)]);
}

function resolve(options: DistillOptions): Resolved {
  const { student, teacher, cache = false, omega = 0.667, schedule, tauStudent = 1 } = options;
  const {
    temperatureSquared = false,
    divergence = { kind: "softCrossEntropy" },
    mode = "renorm",
    vocabPad = false,
  } = options;
  const { releaseTeacher, blockElements, k, hiddenStates } = options;
  const few = cache || k !== undefined;
  const { tauTeacher = few && mode !== "renorm" && mode !== "restrict" ? 1 : 0.25 } = options;
  const teachers = teacher === undefined ? [] : [teacher].flat();
  if (teachers.length > 0 === cache) {
    throw new OptionError(`[distill] expected a teacher or cache: true; received ${cache ? "both" : "neither"}.`);
  }
  checkSchedule("distill", omega, schedule);
  checkTemperatures("distill", tauStudent, tauTeacher, temperatureSquared);
  checkDivergence("distill", divergence);
  if (few) checkSparseMode("distill", mode, tauTeacher);
  if (few && divergence.kind !== "softCrossEntropy") {
    throw new OptionError(
      `[distill] ${cache ? "a cache holds" : "k takes"} a few tokens only, for which there is the soft cross-entropy; received ${divergence.kind}.`,
    );
  }
  checkFew(options);
  if (hiddenStates !== undefined && teachers.length !== 1) {
    throw new OptionError(`[distill] hiddenStates need one teacher; received ${cache ? "a cache" : teachers.length}.`);
  }
  if (vocabPad && needsFullSupport(divergence)) {
    throw new OptionError(`[distill] ${divergence.kind} is infinite where vocabPad gives the teacher probability 0.`);
  }
  return {
    ...{ student, teachers, omega, schedule, tauStudent, tauTeacher, temperatureSquared, divergence, mode, vocabPad },
    hiddenStates: hiddenStates && new HiddenStateLoss("distill", hiddenStates),
    ...(k !== undefined && { k }),
    ...(releaseTeacher && { releaseTeacher }),
    ...(blockElements !== undefined && { blockElements }),
  };
}

/** Of a teacher that is at hand, a mode says how to learn from a few of its tokens; `k` says how few. */
function checkFew({ cache, mode, k }: DistillOptions): void {
  if (cache) {
    if (k !== undefined) throw new OptionError(`[distill] a cache has its own k; received k: ${k} beside cache: true.`);
    return;
  }
  if (k === undefined && mode !== undefined) {
    throw new OptionError(`[distill] mode "${mode}" takes a few of the teacher's tokens: say by k how many.`);
  }
  if (k !== undefined && !(Number.isSafeInteger(k) && k > 0)) {
    throw new OptionError(`[distill] k must be a positive integer; received ${k}.`);
  }
}
