/** Evaluation rows of documents: what `DocumentBatches` trains on, but finite and the same whenever it is walked. */
import { type Batch, type BatchSet, IGNORE_INDEX, requireInteger } from "./batch.js";
import type { Example } from "./denoising.js";
import type { DocumentBatchesOptions } from "./document-batches.js";
import type { DocumentSet } from "./documents.js";
import { ExampleMaker } from "./examples.js";
import { packedBatch } from "./packed-batch.js";
import type { Seed } from "./philox.js";
import { Random } from "./random.js";
import { shuffledOrder } from "./shuffled-order.js";

export interface HeldOutDocumentsOptions extends Omit<DocumentBatchesOptions, "packing" | "lookAhead"> {
  /** Stop after so many rows, for a quick estimate; default all documents. */
  maxRows?: number;
}

/** A set of rows that is in memory, so that documents on a disk are read once. */
export interface HeldOutDocuments extends BatchSet {
  /** The sequences, in the order of the rows. */
  readonly examples: readonly Example[];
}

/**
 * Documents once, in a shuffled order, as packed rows of an objective or of a mixture. The order and all random choices depend on (seed, document) alone, so
 * two models, or one model at two times, are measured on the same sequences. Rows are filled in that order; sequences without a target are left out.
 *
 * @throws {OptionError} for options out of their domain, as of `DocumentBatches`
 *
 * @example
 * const prefixes = await heldOutDocuments(valid, { seqLen: 1024, batchSize: 8, objectives: [{ kind: "prefix", weight: 1 }], maxRows: 100 });
 * const { loss } = await evaluateLoss(model, params, prefixes);
 */
export async function heldOutDocuments(
  documents: DocumentSet,
  options: HeldOutDocumentsOptions,
): Promise<HeldOutDocuments> {
  const { seqLen, batchSize, seed = 0, padding = 0, maxRows = Number.POSITIVE_INFINITY, ...exampleOptions } = options;
  requireInteger("heldOutDocuments", "seqLen", seqLen, 2);
  requireInteger("heldOutDocuments", "batchSize", batchSize, 1);
  if (options.maxRows !== undefined) requireInteger("heldOutDocuments", "maxRows", maxRows, 1);
  const maker = new ExampleMaker(seqLen, exampleOptions);
  const rows = await packInOrder(heldOutExamples(documents, maker, seed), seqLen, maxRows);
  const batches: Batch[] = [];
  for (let at = 0; at < rows.length; at += batchSize) {
    batches.push(packedBatch(rows.slice(at, at + batchSize), seqLen, padding));
  }
  const examples = rows.flat();
  const targetCount = examples.reduce((sum, { targets }) => sum + targets.filter(hasLoss).length, 0);
  return { targetCount, examples, [Symbol.iterator]: () => batches[Symbol.iterator]() };
}

const hasLoss = (target: number) => target !== IGNORE_INDEX;

async function* heldOutExamples(documents: DocumentSet, maker: ExampleMaker, seed: Seed): AsyncGenerator<Example> {
  const order = shuffledOrder(documents.count, seed, "held-out/order");
  for (let place = 0; place < order.count; place++) {
    const index = order.at(place);
    const document = await documents.document(index);
    for (const example of maker.examples(document, new Random(seed, "held-out/objectives", index))) {
      if (example.targets.some(hasLoss)) yield example;
    }
  }
}

/** Reads no further than the rows need. */
async function packInOrder(examples: AsyncIterable<Example>, seqLen: number, maxRows: number): Promise<Example[][]> {
  const rows: Example[][] = [];
  let room = 0;
  for await (const example of examples) {
    if (example.tokens.length > room) {
      if (rows.length >= maxRows) break;
      rows.push([]);
      room = seqLen;
    }
    rows.at(-1)!.push(example);
    room -= example.tokens.length;
  }
  return rows;
}
