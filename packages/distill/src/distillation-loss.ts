/**
 * Distillation losses in blocks of rows: of teacher and student never more logits exist than those of one block (distillation.md §7). Gradients are made with
 * the loss, for an upstream gradient of 1.
 */
import {
  add,
  concat,
  type Device,
  type DType,
  defineOp,
  detach,
  div,
  type ForwardContext,
  full,
  type HostNumber,
  isCapturing,
  linear,
  logicalAnd,
  matmul,
  maximum,
  mul,
  NonFiniteError,
  notEqual,
  OptionError,
  reshape,
  ShapeError,
  scope,
  slice,
  type Tensor,
  transpose,
  zeros,
} from "@llmeff/tensor";
import { type BlockSettings, blockLoss, statCount } from "./block-loss.js";
import { checkDivergence, type Divergence, finiteDivergences, needsFullSupport } from "./divergences.js";
import { timed } from "./metrics.js";
import { checkSparse, type SparseMode, type SparseTarget } from "./sparse.js";
import { capped, checkTeachers, type DistillTarget, isSparse, matrixOf, teachersOf, vocabOf } from "./targets.js";

export interface DistillationLossOptions {
  /** int32, the shape of the rows: the next token, −100 for rows without loss. */
  labels?: Tensor;
  /** bool, the shape of the rows: which count, of those with a label where there are labels. Default all of these. */
  mask?: Tensor;
  /** Weight of the cross-entropy with the labels; default 0. */
  ceWeight?: HostNumber;
  /** Weight of the divergence from the teacher; default 1. */
  kdWeight?: HostNumber;
  /** For a teacher with all its scores; default soft cross-entropy. */
  divergence?: Divergence;
  /** For a few of the teacher's tokens; default `"renorm"`. */
  mode?: SparseMode;
  /** Divides the student's logits in the divergence; default 1. */
  tauStudent?: number;
  /** Divides the teacher's logits; default 1. */
  tauTeacher?: number;
  /** Multiply the divergence by τ² (Hinton et al., arXiv:1503.02531); both temperatures must be τ. Default false. */
  temperatureSquared?: boolean;
  /** Let the student have more tokens than the teacher, which get probability 0; default false: an error. */
  vocabPad?: boolean;
  /** Most logits of a block; default 2²⁴. Loss and gradients don't depend on it but for the order of sums. */
  blockElements?: number;
  /** Called with the device's time, in milliseconds, for the teacher's scores of each block; not in captured steps, which aren't timed apart. */
  onTeacherTime?: (milliseconds: Promise<number>) => void;
}

/** Means over the rows that count. */
export interface DistillationParts {
  /** `[]`: `ceWeight · CE + kdWeight · KD`, which alone carries a gradient. */
  loss: Tensor;
  /** `[6]`: sums over the rows of ce, kd, kl, teacher entropy and top-1 agreement, then the number of rows. */
  sums: Tensor;
}

/** How many of the sums are told. */
const toldCount = statCount - 1;

interface Settings extends Omit<BlockSettings, "ceWeight" | "kdWeight"> {
  /** Name of the function for messages. */
  where: string;
  ceWeight: HostNumber;
  kdWeight: HostNumber;
  blockRows: number;
  softcap: number;
  /** Of the inputs, which their gradients get. */
  dtypes: readonly DType[];
}

/** Sums over blocks, and gradients of the rows and of the weight. */
interface Accumulated {
  stats: Tensor;
  drows: Tensor[];
  dweight: Tensor | undefined;
}

const distillationOp = defineOp<Settings, readonly [loss: Tensor, sums: Tensor]>({
  name: "distillationLoss",
  inputNames: ["student", "weight"],
  forward(context, inputs, settings) {
    const [x, weight] = inputs as [Tensor, Tensor | undefined];
    const options = { dtype: x.dtype === "float64" ? "float64" : "float32", device: x.device } as const;
    const ceWeight = full([], settings.ceWeight, options);
    const kdWeight = full([], settings.kdWeight, options);
    const count = settings.valid.astype(options.dtype).sum();
    const inverse = div(full([], 1, options), maximum(count, 1));
    const sums: Accumulated = { stats: zeros([statCount], options), drows: [], dweight: undefined };
    // The gradient is that of the mean: 1/n goes into the weights, which are numbers, instead of into the rows.
    const blocks = { ...settings, ceWeight: mul(ceWeight, inverse), kdWeight: mul(kdWeight, inverse) };
    for (let start = 0; start < x.shape[0]!; start += settings.blockRows) {
      addBlock(context, sums, { x, weight, start }, blocks);
    }
    if (needsFullSupport(settings.divergence) && !isSparse(settings.target)) refuseExcluded(settings, sums.stats);
    const [ce, kd] = [0, 1].map((i) => reshape(slice(sums.stats, 0, i, i + 1), [])) as [Tensor, Tensor];
    const weighted = mul(kd, kdWeight);
    const total = settings.labels ? add(mul(ce, ceWeight), weighted) : weighted;
    if (context.recording) {
      const drows = sums.drows.length > 0 ? concat(sums.drows, 0) : zeros(x.shape, { ...options, dtype: x.dtype });
      const dweight = sums.dweight ?? (weight && zeros(weight.shape, options));
      context.save(...[drows, dweight].filter((gradient, i): gradient is Tensor => context.needs[i]! && !!gradient));
    }
    return [mul(total, inverse), concat([slice(sums.stats, 0, 0, toldCount), reshape(count, [1])])];
  },
  backward({ needs, saved, options: { dtypes } }, [dloss]) {
    const gradients = [...saved];
    return needs.map((needed, i) => {
      const gradient = needed ? gradients.shift()! : undefined;
      return gradient && dloss ? mul(gradient, dloss.astype(gradient.dtype)).astype(dtypes[i]!) : null;
    });
  },
});

/**
 * The teacher's values are on the device: only reading a number tells of an excluded token. Replays of a captured step can't read; their loss is infinite,
 * which a training loop refuses.
 *
 * @throws {NonFiniteError} if the divergence is infinite
 */
function refuseExcluded({ where, divergence }: Settings, stats: Tensor): void {
  if (isCapturing()) return;
  const excluded = slice(stats, 0, toldCount, toldCount + 1).itemSync();
  if (!(excluded > 0)) return;
  throw new NonFiniteError(
    `[${where}] ${divergence.kind} is infinite: the teacher excludes ${excluded} tokens (log-probability −∞) that the student doesn't, in the rows that count. Take ${finiteDivergences}.`,
  );
}

function addBlock(
  { needs, recording }: ForwardContext,
  sums: Accumulated,
  { x, weight, start }: { x: Tensor; weight: Tensor | undefined; start: number },
  settings: BlockSettings & Pick<Settings, "blockRows" | "softcap">,
): void {
  const before = sums.stats;
  const dweightBefore = sums.dweight;
  const { stats, drows, dweight } = scope(() => {
    const rows = slice(x, 0, start, Math.min(start + settings.blockRows, x.shape[0]!));
    const logits = capped(weight ? linear(rows, weight) : rows, settings.softcap).astype(before.dtype);
    const block = blockLoss(logits, start, settings, recording);
    const sum = add(before, block.stats);
    if (block.dlogits === undefined) return { stats: sum };
    const dlogits = uncapped(block.dlogits, logits, settings.softcap).astype(x.dtype);
    if (weight === undefined) return { stats: sum, drows: dlogits };
    const own = needs[1] ? matmul(transpose(dlogits), rows).astype(before.dtype) : undefined;
    const dweight = own && dweightBefore ? add(dweightBefore, own) : own;
    return { stats: sum, ...(needs[0] && { drows: matmul(dlogits, weight) }), ...(dweight && { dweight }) };
  });
  before.dispose();
  dweightBefore?.dispose();
  sums.stats = stats;
  sums.dweight = dweight;
  if (drows) sums.drows.push(drows);
}

/** The gradient before the cap `c · tanh(z / c)`, whose derivative is `1 − (logits / c)²`. */
function uncapped(dlogits: Tensor, logits: Tensor, softcap: number): Tensor {
  return softcap > 0
    ? mul(
        dlogits,
        mul(logits, 1 / softcap)
          .square()
          .neg()
          .add(1),
      )
    : dlogits;
}

/**
 * Loss of a student's logits against a teacher.
 *
 * `loss = Σ_valid (ceWeight · CE + kdWeight · KD) / n_valid`; 0 with gradient 0 if no row is valid.
 *
 * @param logits - student, `[…, V]`
 * @param target - a teacher's logits or what they are made of, several of these, or a few tokens with their probabilities; never gets a gradient
 * @throws {ShapeError} if rows or vocabularies differ
 * @throws {OptionError} for a divergence, mode or temperature outside its domain
 * @throws {NonFiniteError} for a divergence that is infinite since the teacher excludes tokens; to find this out the call waits for the teacher's scores
 *
 * @example
 * const loss = distillationLoss(studentLogits, { logits: teacherLogits }, { divergence: { kind: "jsd" } });
 */
export function distillationLoss(logits: Tensor, target: DistillTarget, options: DistillationLossOptions = {}): Tensor {
  return distillationParts(logits, target, options).loss;
}

/** `distillationLoss` with what is told of it. */
export function distillationParts(
  logits: Tensor,
  target: DistillTarget,
  options: DistillationLossOptions = {},
): DistillationParts {
  return scope(() => {
    const rows = matrixOf(logits);
    return partsOf([rows], settingsOf("distillationLoss", rows, logits.shape.at(-1)!, target, options, 0));
  });
}

/**
 * The same for a student whose logits are `softcap(hidden · weightᵀ)` and exist in blocks only.
 *
 * @param hidden - `[…, C]`
 * @param weight - `[V, C]`
 * @param options.softcap - as for the student's output; default 0, off
 */
export function linearDistillationParts(
  hidden: Tensor,
  weight: Tensor,
  target: DistillTarget,
  options: DistillationLossOptions & { softcap?: number } = {},
): DistillationParts {
  return scope(() => {
    const rows = matrixOf(hidden);
    const settings = settingsOf(
      "linearDistillationLoss",
      rows,
      weight.shape[0]!,
      target,
      options,
      options.softcap ?? 0,
    );
    return partsOf([rows, weight], settings);
  });
}

function partsOf(inputs: readonly Tensor[], settings: Omit<Settings, "dtypes">): DistillationParts {
  const [loss, sums] = distillationOp(inputs, { ...settings, dtypes: inputs.map(({ dtype }) => dtype) });
  return { loss, sums: detach(sums) };
}

function settingsOf(
  where: string,
  rows: Tensor,
  vocabSize: number,
  target: DistillTarget,
  options: DistillationLossOptions,
  softcap: number,
): Omit<Settings, "dtypes"> {
  const { labels, mask, ceWeight = 0, kdWeight = 1, divergence = { kind: "softCrossEntropy" } } = options;
  const { mode = "renorm", tauStudent = 1, tauTeacher = 1, temperatureSquared = false, vocabPad = false } = options;
  const { blockElements = 2 ** 24, onTeacherTime } = options;
  const count = rows.shape[0]!;
  checkTemperatures(where, tauStudent, tauTeacher, temperatureSquared);
  if (!(blockElements >= 1))
    throw new OptionError(`[${where}] blockElements must be at least 1; received ${blockElements}.`);
  checkTarget(where, target, { rows: count, vocabSize, vocabPad, divergence, mode, tauTeacher });
  for (const [name, given] of Object.entries({ labels, mask })) {
    if (given && given.size !== count) {
      throw new ShapeError(`[${where}] ${name} must have a value for each of ${count} rows; received ${given.size}.`);
    }
  }
  if (ceWeight !== 0 && labels === undefined) throw new OptionError(`[${where}] ceWeight needs labels; received none.`);
  const flat = (x: Tensor) => reshape(x, [count]);
  const labelled = labels && notEqual(flat(labels), -100);
  const asked = mask && flat(mask);
  // A row without a label has no cross-entropy, so it doesn't count even if the mask has it.
  const valid =
    labelled && asked
      ? logicalAnd(labelled, asked)
      : (labelled ?? asked ?? full([count], 1, { dtype: "bool", device: rows.device }));
  return {
    where,
    asTeacher: (fn) => measured(rows.device, fn, onTeacherTime),
    target: isSparse(target) ? flatTarget(target, count) : target,
    divergence,
    mode,
    tauStudent,
    tauTeacher,
    scale: temperatureSquared ? tauStudent ** 2 : 1,
    labels: labels && flat(labels),
    valid,
    ceWeight,
    kdWeight,
    blockRows: Math.max(1, Math.floor(blockElements / vocabSize)),
    softcap,
  };
}

function measured<R>(device: Device, fn: () => R, report: DistillationLossOptions["onTeacherTime"]): R {
  if (report === undefined) return fn();
  const { result, ms } = timed(device, fn);
  if (ms !== undefined) report(ms);
  return result;
}

/** @throws {OptionError} */
export function checkTemperatures(where: string, tauStudent: number, tauTeacher: number, squared: boolean): void {
  for (const [name, tau] of Object.entries({ tauStudent, tauTeacher })) {
    if (!(tau > 0 && Number.isFinite(tau)))
      throw new OptionError(`[${where}] ${name} must be above 0; received ${tau}.`);
  }
  if (squared && tauStudent !== tauTeacher) {
    throw new OptionError(
      `[${where}] temperatureSquared needs one temperature; received tauStudent ${tauStudent} and tauTeacher ${tauTeacher}.`,
    );
  }
}

function checkTarget(
  where: string,
  target: DistillTarget,
  given: {
    rows: number;
    vocabSize: number;
    vocabPad: boolean;
    divergence: Divergence;
    mode: SparseMode;
    tauTeacher: number;
  },
): void {
  const { rows, vocabSize, divergence } = given;
  if (isSparse(target)) {
    checkSparse(where, given.mode, target, given.tauTeacher);
    const k = target.ids.shape.at(-1) ?? 0;
    if (k === 0 || target.ids.size !== rows * k) {
      throw new ShapeError(
        `[${where}] the teacher's ids must be [${rows}, k]; received [${target.ids.shape.join(", ")}].`,
      );
    }
    return;
  }
  const teachers = teachersOf(target);
  checkDivergence(where, divergence);
  checkTeachers(where, teachers, given);
  if (needsFullSupport(divergence) && teachers.some((scores) => vocabOf(scores) < vocabSize)) {
    throw new OptionError(
      `[${where}] ${divergence.kind} is infinite where the teacher has probability 0, as vocabPad gives the student's further tokens. Take ${finiteDivergences}.`,
    );
  }
}

function flatTarget(target: SparseTarget, rows: number): SparseTarget {
  const { ids, logProbs, tailLogProb, weights } = target;
  const matrix = (x: Tensor) => reshape(x, [rows, x.size / rows]);
  return {
    ids: matrix(ids),
    ...(logProbs && { logProbs: matrix(logProbs) }),
    ...(tailLogProb && { tailLogProb: reshape(tailLogProb, [rows]) }),
    ...(weights && { weights: matrix(weights) }),
  };
}
