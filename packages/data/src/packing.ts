/**
 * Packing of documents into rows of one length (models.md §6): which documents share a row, and the masks of a row.
 *
 * A row's documents don't see each other, and padding is a document of its own that never enters the loss.
 */
import { OptionError } from "@llmeff/native/errors";
import { requireInteger } from "./batch.js";

/** Document number of padding. */
export const PADDING_DOCUMENT = -1;

export const packingMethods = ["greedy", "firstFit", "bestFit"] as const;
/**
 * `greedy`: rows are filled in the documents' order, and closed when the next doesn't fit. `firstFit`: the longest first, each into the
 * first row with room. `bestFit`: the longest first, each into the fullest row with room.
 */
export type PackingMethod = (typeof packingMethods)[number];

/**
 * Rows of document numbers. Equally long documents stay in their order, equally full rows too.
 *
 * @param lengths - of the documents, each at most `rowLength`; split longer ones first
 * @throws {OptionError} for a document that is empty or longer than a row
 *
 * @example
 * packDocuments([3, 5, 2], 5, "firstFit"); // [[1], [0, 2]]
 */
export function packDocuments(
  lengths: ArrayLike<number>,
  rowLength: number,
  method: PackingMethod = "greedy",
): number[][] {
  requireInteger("packDocuments", "rowLength", rowLength, 1);
  if (!packingMethods.includes(method)) {
    throw new OptionError(
      `[packDocuments] method must be one of ${packingMethods.join(", ")}; received ${JSON.stringify(method)}.`,
    );
  }
  const numbers = Array.from(lengths, (length, document) => {
    requireInteger("packDocuments", `the length of document ${document}`, length, 1);
    if (length > rowLength) {
      throw new OptionError(
        `[packDocuments] document ${document} has ${length} tokens, a row ${rowLength}. Split longer documents first.`,
      );
    }
    return document;
  });
  if (method === "greedy") return packInOrder(numbers, lengths, rowLength);
  numbers.sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  return packDecreasing(numbers, lengths, rowLength, method === "firstFit" ? firstWith : fullestWith);
}

function packInOrder(numbers: readonly number[], lengths: ArrayLike<number>, rowLength: number): number[][] {
  const rows: number[][] = [];
  let room = 0;
  for (const document of numbers) {
    if (rows.length === 0 || lengths[document]! > room) {
      rows.push([]);
      room = rowLength;
    }
    rows.at(-1)!.push(document);
    room -= lengths[document]!;
  }
  return rows;
}

/** The row to put a document of so many tokens into; −1 for a new one. */
type Choice = (rooms: readonly number[], length: number) => number;

const firstWith: Choice = (rooms, length) => rooms.findIndex((room) => room >= length);

const fullestWith: Choice = (rooms, length) =>
  rooms.reduce((best, room, row) => (room >= length && (best < 0 || room < rooms[best]!) ? row : best), -1);

function packDecreasing(
  numbers: readonly number[],
  lengths: ArrayLike<number>,
  rowLength: number,
  choose: Choice,
): number[][] {
  const rows: number[][] = [];
  const rooms: number[] = [];
  for (const document of numbers) {
    const length = lengths[document]!;
    const found = choose(rooms, length);
    const row = found < 0 ? rows.push([]) - 1 : found;
    rows[row]!.push(document);
    rooms[row] = (rooms[row] ?? rowLength) - length;
  }
  return rows;
}

/** Share of the rows' places that hold no document. */
export function paddingWaste(
  rows: readonly (readonly number[])[],
  lengths: ArrayLike<number>,
  rowLength: number,
): number {
  const used = rows.flat().reduce((sum, document) => sum + lengths[document]!, 0);
  return rows.length === 0 ? 0 : 1 - used / (rows.length * rowLength);
}

/** What tells the documents of a row apart. */
export interface PackedRow {
  /** Number of the document in the row, from 0; −1 on padding. */
  documents: Int32Array;
  /** Place in the document; 0 on padding. */
  positions: Int32Array;
  /** First places of the documents, and the end of the last. */
  cumulativeLengths: Int32Array;
  /** 1 where the next place belongs to the same document. */
  hasNext: Uint8Array;
}

/**
 * The arrays of a row of documents, in this order, filled up with padding.
 *
 * @param options.firstPositions - of the documents, for pieces of longer ones whose positions go on; default 0, each restarts
 * @throws {OptionError} if they are longer than the row
 */
export function packedRow(
  lengths: ArrayLike<number>,
  rowLength: number,
  options: { firstPositions?: ArrayLike<number> } = {},
): PackedRow {
  requireInteger("packedRow", "rowLength", rowLength, 1);
  const documents = new Int32Array(rowLength).fill(PADDING_DOCUMENT);
  const positions = new Int32Array(rowLength);
  const hasNext = new Uint8Array(rowLength);
  const cumulativeLengths = Int32Array.of(0, ...Array.from(lengths));
  for (let i = 0; i < lengths.length; i++) {
    const start = cumulativeLengths[i]!;
    const end = start + requireInteger("packedRow", `the length of document ${i}`, lengths[i]!, 1);
    if (end > rowLength) {
      throw new OptionError(`[packedRow] the first ${i + 1} documents have ${end} tokens, the row ${rowLength}.`);
    }
    cumulativeLengths[i + 1] = end;
    documents.fill(i, start, end);
    hasNext.fill(1, start, end - 1);
    const first = options.firstPositions?.[i] ?? 0;
    for (let at = start; at < end; at++) positions[at] = first + at - start;
  }
  return { documents, positions, cumulativeLengths, hasNext };
}

/** `[T, T]`, row-major: 1 where the place of the row sees that of the column, which is of its document and not later. */
export function documentMask(documents: ArrayLike<number>): Uint8Array {
  const T = documents.length;
  const mask = new Uint8Array(T * T);
  for (let i = 0; i < T; i++) {
    for (let j = 0; j <= i; j++) if (documents[i] === documents[j]) mask[i * T + j] = 1;
  }
  return mask;
}

/** Pieces of at most `rowLength` tokens, `[start, end)` each, of a document that may be longer. */
export function splitDocument(length: number, rowLength: number): [start: number, end: number][] {
  requireInteger("splitDocument", "rowLength", rowLength, 1);
  const pieces: [number, number][] = [];
  for (let start = 0; start < length; start += rowLength) pieces.push([start, Math.min(start + rowLength, length)]);
  return pieces;
}
