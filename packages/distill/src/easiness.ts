/**
 * When a student has learnt what its teacher can teach: losses by how easy the teacher finds a token (distillation.md §3). A teacher helps where it
 * is right already, and early.
 */
import { type Batch, IGNORE_INDEX } from "@llmeff/data";
import {
  concat,
  exp,
  gather,
  logSoftmax,
  maximum,
  noGrad,
  OptionError,
  scope,
  slice,
  sub,
  sum,
  type Tensor,
} from "@llmeff/tensor";
import { weighted } from "./divergences.js";
import { inputsOf, scoresBy, type Teacher } from "./model.js";
import { inRowBlocks, scoresOf, type TeacherScores, vocabOf, widened } from "./targets.js";

/** Of each target. */
export interface ComparedTokens {
  teacherLosses: Float64Array;
  studentLosses: Float64Array;
  /** `KL(teacher ‖ student)` */
  divergences: Float64Array;
}

export interface EasinessBucket {
  tokens: number;
  /** Means, in nats. */
  teacherCe: number;
  studentCe: number;
  kl: number;
}

export interface EasinessReport {
  /** From the tokens that the teacher finds easiest to the hardest, equally many each. */
  buckets: EasinessBucket[];
  /** Whether the student's loss on the easiest is below the teacher's: time to go on without it. */
  switchNow: boolean;
}

/** Losses of both on held-out batches. */
export async function compareTokens(
  student: Teacher,
  teacher: Teacher,
  batches: Iterable<Batch>,
  options: { signal?: AbortSignal } = {},
): Promise<ComparedTokens> {
  const rows: number[][] = [];
  for (const batch of batches) {
    options.signal?.throwIfAborted();
    using compared = noGrad(() => scope(() => comparedRows(student, teacher, batch)));
    const values = await compared.data();
    for (const [at, target] of batch.targets.entries()) {
      if (target !== IGNORE_INDEX) rows.push([values[3 * at]!, values[3 * at + 1]!, values[3 * at + 2]!]);
    }
  }
  const column = (i: number) => Float64Array.from(rows, (row) => row[i]!);
  return { teacherLosses: column(0), studentLosses: column(1), divergences: column(2) };
}

/** `[N, 3]`: loss of the teacher, of the student, and their divergence. */
function comparedRows(student: Teacher, teacher: Teacher, batch: Batch): Tensor {
  const inputs = inputsOf(batch, student.params);
  const [own, wanted] = [scoresBy(student, inputs), scoresBy(teacher, inputs)];
  const ids = maximum(inputs.targets.flatten(), 0).unsqueeze(-1);
  return inRowBlocks(batch.targets.length, vocabOf(own), (start, end) => {
    const logs = (scores: TeacherScores) => logSoftmax(widened(scoresOf(scores, start, end)));
    return comparedBlock(logs(wanted), logs(own), slice(ids, 0, start, end));
  });
}

function comparedBlock(logP: Tensor, logQ: Tensor, ids: Tensor): Tensor {
  const kl = sum(weighted(exp(logP), sub(logP, logQ)), { axis: -1, keepDims: true });
  return concat([gather(logP, -1, ids).neg(), gather(logQ, -1, ids).neg(), kl], 1);
}

/**
 * Losses of both by how easy the teacher finds a token.
 *
 * @param bucketCount - default 10
 */
export function easinessReport(compared: ComparedTokens, bucketCount = 10): EasinessReport {
  const { teacherLosses, studentLosses, divergences } = compared;
  const count = teacherLosses.length;
  if (!Number.isSafeInteger(bucketCount) || bucketCount < 1 || bucketCount > count) {
    throw new OptionError(
      `[easinessReport] bucketCount must be in 1..${count}, the number of tokens; received ${bucketCount}.`,
    );
  }
  const order = [...teacherLosses.keys()].sort((a, b) => teacherLosses[a]! - teacherLosses[b]! || a - b);
  const buckets = Array.from({ length: bucketCount }, (_, i): EasinessBucket => {
    const own = order.slice(Math.floor((i * count) / bucketCount), Math.floor(((i + 1) * count) / bucketCount));
    const meanOf = (values: Float64Array) => own.reduce((total, at) => total + values[at]!, 0) / own.length;
    return {
      tokens: own.length,
      teacherCe: meanOf(teacherLosses),
      studentCe: meanOf(studentLosses),
      kl: meanOf(divergences),
    };
  });
  const [easiest] = buckets;
  return { buckets, switchNow: easiest!.studentCe < easiest!.teacherCe };
}
