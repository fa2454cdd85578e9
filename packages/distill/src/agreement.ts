/** Whether a student can learn from a teacher token by token: both must mean the same by every id and position (distillation.md §6). */
import { createHash } from "node:crypto";
import type { Tokenizer } from "@llmeff/data";
import { LlmeffError } from "@llmeff/tensor";

type Piece = readonly [id: number, piece: string];

/** What must agree. */
export interface TokenIdentity {
  vocabSize: number;
  /** SHA-256 of the tokenizer's file. */
  fileHash: string;
  /** SHA-256 of its pieces in the order of their ids, which agrees where two files say the same in other words. */
  piecesHash: string;
  /** Those pieces, ascending by id, where the tokenizer tells them; compared as far as the teacher's ids go where the student has more. */
  pieces?: readonly Piece[];
  /** Ids of special tokens by name. */
  specialIds: Readonly<Record<string, number>>;
  /** Longest sequence; compared where both tell it. */
  seqLen?: number;
  /** Number of the first position; default 0. */
  positionOffset?: number;
}

/** Teacher and student mean different things; `field`, `student` and `teacher` say what. */
export class AgreementError extends LlmeffError {
  constructor(
    readonly field: string,
    readonly student: unknown,
    readonly teacher: unknown,
    advice: string,
  ) {
    const [a, b] = [JSON.stringify(student), JSON.stringify(teacher)];
    super("ERR_AGREEMENT", `[requireAgreement] ${field} differs: the student has ${a} and the teacher ${b}. ${advice}`);
  }
}

const sha256 = (content: string | Uint8Array) => createHash("sha256").update(content).digest("hex");

/**
 * The identity of a tokenizer.
 *
 * @param file - bytes of its `tokenizer.json`; default its plain data as JSON
 */
export function tokenIdentity(tokenizer: Tokenizer, file?: Uint8Array): TokenIdentity {
  const spec = tokenizer.toJSON();
  const json = JSON.stringify(spec);
  const pieces = spec.type === "hugging-face" ? piecesOf(spec.tokenizer) : undefined;
  return {
    vocabSize: tokenizer.vocabSize,
    fileHash: sha256(file ?? json),
    piecesHash: pieces ? sha256(JSON.stringify(pieces.all)) : sha256(json),
    ...(pieces && { pieces: pieces.all }),
    specialIds: pieces?.special ?? {},
  };
}

interface TokenizerFile {
  model?: { vocab?: Record<string, number> | [piece: string, score: number][] };
  added_tokens?: { id: number; content: string; special?: boolean }[];
}

/** Ids and pieces, ascending, and the special ones. */
function piecesOf(file: TokenizerFile): { all: Piece[]; special: Record<string, number> } {
  const { model: { vocab = {} } = {}, added_tokens: added = [] } = file;
  const own: [number, string][] = Array.isArray(vocab)
    ? vocab.map(([piece], id) => [id, piece])
    : Object.entries(vocab).map(([piece, id]) => [id, piece]);
  const byId = new Map([...own, ...added.map(({ id, content }) => [id, content] as const)]);
  const special = added.filter((token) => token.special).map(({ content, id }) => [content, id] as const);
  return { all: [...byId].sort(([a], [b]) => a - b), special: Object.fromEntries(special.sort()) };
}

/**
 * Refuses a teacher whose ids or positions mean something else. Compared in this order: vocabulary size, tokenizer, special tokens, sequence length,
 * position offset.
 *
 * @param options.vocabPad - let the student have more ids than the teacher: padding of the same tokenizer; default false
 * @throws {AgreementError} naming both values
 */
export function requireAgreement(
  student: TokenIdentity,
  teacher: TokenIdentity,
  options: { vocabPad?: boolean } = {},
): void {
  const padded = options.vocabPad === true && student.vocabSize > teacher.vocabSize;
  if (student.vocabSize !== teacher.vocabSize && !padded) {
    const advice =
      student.vocabSize > teacher.vocabSize ? "Set vocabPad if the rest is padding of the same tokenizer." : other;
    throw new AgreementError("vocabulary size", student.vocabSize, teacher.vocabSize, advice);
  }
  // Padding may itself be named in the file: then what both have is compared.
  const same = student.fileHash === teacher.fileHash || student.piecesHash === teacher.piecesHash;
  if (!same && !(padded && piecesBelow(teacher.vocabSize, student) === piecesBelow(teacher.vocabSize, teacher))) {
    throw new AgreementError("tokenizer", student.piecesHash, teacher.piecesHash, other);
  }
  for (const name of new Set([
    ...Object.keys(teacher.specialIds),
    ...(padded ? [] : Object.keys(student.specialIds)),
  ])) {
    const [own, wanted] = [student.specialIds[name], teacher.specialIds[name]];
    if (own !== wanted) throw new AgreementError(`special token ${name}`, own ?? null, wanted ?? null, other);
  }
  if (student.seqLen !== undefined && teacher.seqLen !== undefined && student.seqLen > teacher.seqLen) {
    throw new AgreementError(
      "sequence length",
      student.seqLen,
      teacher.seqLen,
      "Shorten the sequences to the teacher's.",
    );
  }
  const [own, wanted] = [student.positionOffset ?? 0, teacher.positionOffset ?? 0];
  if (own !== wanted) throw new AgreementError("position offset", own, wanted, "Shift one of the two.");
}

/** NaN, which equals nothing, where they aren't told. */
function piecesBelow(count: number, { pieces }: TokenIdentity): string | number {
  return pieces ? JSON.stringify(pieces.filter(([id]) => id < count)) : Number.NaN;
}

const other = "Distil by the teacher's generations instead (sequence-level), for which tokenizers may differ.";
