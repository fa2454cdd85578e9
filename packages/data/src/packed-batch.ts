/** Sequences packed into rows, as a batch with the masks that keep them apart. */
import { type Batch, IGNORE_INDEX } from "./batch.js";
import type { Example } from "./denoising.js";
import { packedRow } from "./packing.js";

/**
 * The rows as a batch `[B, T]`, with `documents` (number in the row, −1 on padding), `positions` (restarting in each sequence) and `prefix` (leading tokens
 * of the own sequence that see each other) as its `extras`.
 */
export function packedBatch(rows: readonly (readonly Example[])[], seqLen: number, padding: number): Batch {
  const shape = [rows.length, seqLen];
  const size = rows.length * seqLen;
  const tokens = new Int32Array(size).fill(padding);
  const targets = new Int32Array(size).fill(IGNORE_INDEX);
  const [documents, positions, prefix] = [new Int32Array(size), new Int32Array(size), new Int32Array(size)];
  for (const [i, examples] of rows.entries()) {
    const row = i * seqLen;
    const packed = packedRow(
      examples.map((example) => example.tokens.length),
      seqLen,
    );
    documents.set(packed.documents, row);
    positions.set(packed.positions, row);
    for (const [k, example] of examples.entries()) {
      const start = row + packed.cumulativeLengths[k]!;
      tokens.set(example.tokens, start);
      targets.set(example.targets, start);
      prefix.fill(example.prefixLength, start, start + example.tokens.length);
    }
  }
  const extras = {
    documents: { data: documents, shape },
    positions: { data: positions, shape },
    prefix: { data: prefix, shape },
  };
  return { tokens, targets, batchSize: rows.length, seqLen, extras };
}
