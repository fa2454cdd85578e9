/** The teacher's side of a loss, and its rows as distributions. */
import {
  concat,
  type DType,
  full,
  linear,
  logSoftmax,
  logSumExp,
  mul,
  OptionError,
  reshape,
  ShapeError,
  scope,
  slice,
  stack,
  type Tensor,
  tanh,
} from "@llmeff/tensor";
import type { SparseTarget } from "./sparse.js";

/** A teacher's scores: as they are, or what they are made of, so that they exist in blocks of rows only. */
export type TeacherScores =
  | { /** `[…, V]` */ logits: Tensor }
  | {
      /** `[…, C]`, of the teacher's width. */
      hidden: Tensor;
      /** `[V, C]` */
      weight: Tensor;
      /** Logits become `softcap · tanh(logits / softcap)`; default 0, off. */
      softcap?: number;
    };

/** One teacher, several whose probabilities are averaged, or a few tokens of one. */
export type DistillTarget = TeacherScores | { teachers: readonly TeacherScores[] } | SparseTarget;

export function isSparse(target: DistillTarget): target is SparseTarget {
  return "ids" in target;
}

export function teachersOf(target: Exclude<DistillTarget, SparseTarget>): readonly TeacherScores[] {
  return "teachers" in target ? target.teachers : [target];
}

/** Logits of rows, in the dtype of the student's. */
export function scoresOf(scores: TeacherScores, start: number, end: number): Tensor {
  if ("logits" in scores) return slice(matrixOf(scores.logits), 0, start, end);
  const { hidden, weight, softcap = 0 } = scores;
  return capped(linear(slice(matrixOf(hidden), 0, start, end), weight), softcap);
}

/** Some rows of a teacher's scores. */
export function sliceScores(scores: TeacherScores, start: number, end: number): TeacherScores {
  if ("logits" in scores) return { logits: slice(matrixOf(scores.logits), 0, start, end) };
  return { ...scores, hidden: slice(matrixOf(scores.hidden), 0, start, end) };
}

export function capped(logits: Tensor, softcap: number): Tensor {
  return softcap > 0 ? mul(tanh(mul(logits, 1 / softcap)), softcap) : logits;
}

/** `[…, C]` as `[N, C]`. */
export function matrixOf(x: Tensor): Tensor {
  const width = x.shape.at(-1)!;
  return reshape(x, [width === 0 ? 0 : x.size / width, width]);
}

/** Most logits that evaluations hold at a time. */
export const evaluationBlockElements = 2 ** 24;

/** Logits in float32 at least. */
export function widened(logits: Tensor): Tensor {
  return logits.dtype === "float64" ? logits : logits.astype("float32");
}

/** `[rows, …]` from blocks of rows, in whose making the logits of these rows exist. */
export function inRowBlocks(rows: number, vocabSize: number, fn: (start: number, end: number) => Tensor): Tensor {
  const rowsAtOnce = Math.max(1, Math.floor(evaluationBlockElements / vocabSize));
  const blocks: Tensor[] = [];
  for (let start = 0; start < rows; start += rowsAtOnce) {
    blocks.push(scope(() => fn(start, Math.min(start + rowsAtOnce, rows))));
  }
  return concat(blocks, 0);
}

/** Vocabulary of a teacher. */
export function vocabOf(scores: TeacherScores): number {
  return "logits" in scores ? scores.logits.shape.at(-1)! : scores.weight.shape[0]!;
}

/** Rows of a teacher. */
export function rowCountOf(scores: TeacherScores): number {
  const shaped = "logits" in scores ? scores.logits : scores.hidden;
  return shaped.size / shaped.shape.at(-1)!;
}

/** `teacherRows` where no student gives the dtype: in float32 at least. */
export function rowsOf(
  teachers: readonly TeacherScores[],
  rows: { start: number; end: number },
  form: { tauTeacher: number; vocabSize: number },
): Tensor {
  const wide = teachers.some((scores) => ("logits" in scores ? scores.logits : scores.hidden).dtype === "float64");
  return teacherRows(teachers, rows, { ...form, dtype: wide ? "float64" : "float32" });
}

/**
 * Log-probabilities `[n, V]` of rows at the teacher's temperature; of several teachers the average of their probabilities.
 *
 * @param vocabSize - V of the student; tokens that a teacher doesn't have get probability 0
 */
export function teacherRows(
  teachers: readonly TeacherScores[],
  rows: { start: number; end: number },
  { tauTeacher, vocabSize, dtype }: { tauTeacher: number; vocabSize: number; dtype: DType },
): Tensor {
  const logProbs = teachers.map((scores) => {
    const logits = scoresOf(scores, rows.start, rows.end).astype(dtype);
    return padded(logSoftmax(tauTeacher === 1 ? logits : mul(logits, 1 / tauTeacher)), vocabSize);
  });
  if (logProbs.length === 1) return logProbs[0]!;
  return logSumExp(stack(logProbs), { axis: 0 }).add(-Math.log(logProbs.length));
}

function padded(logProbs: Tensor, vocabSize: number): Tensor {
  const [n, own] = logProbs.shape as [number, number];
  if (own === vocabSize) return logProbs;
  const { dtype, device } = logProbs;
  return concat([logProbs, full([n, vocabSize - own], Number.NEGATIVE_INFINITY, { dtype, device })], 1);
}

/** @throws {ShapeError} if rows or vocabularies differ; {OptionError} if a smaller vocabulary isn't to be padded */
export function checkTeachers(
  where: string,
  teachers: readonly TeacherScores[],
  { rows, vocabSize, vocabPad }: { rows: number; vocabSize: number; vocabPad: boolean },
): void {
  if (teachers.length === 0) throw new OptionError(`[${where}] expected at least one teacher; received none.`);
  for (const scores of teachers) {
    const own = vocabOf(scores);
    const has = rowCountOf(scores);
    if (has !== rows) throw new ShapeError(`[${where}] the teacher has ${has} rows and the student ${rows}.`);
    if (own !== vocabSize && !(vocabPad && own < vocabSize)) {
      const advice = own < vocabSize ? "Set vocabPad if the rest is padding of the same tokenizer." : "";
      throw new ShapeError(
        `[${where}] the teacher's vocabulary has ${own} tokens and the student's ${vocabSize}. ${advice}`.trim(),
      );
    }
  }
}
