/** Packed training rows of documents: each row holds whole sequences of an objective mixture, which don't see each other. */
import { OptionError } from "@llmeff/native/errors";
import { type Batch, type BatchSource, type JsonObject, readState, requireInteger } from "./batch.js";
import type { Example } from "./denoising.js";
import type { DocumentSource } from "./documents.js";
import { ExampleMaker, type ExampleOptions } from "./examples.js";
import { packedBatch } from "./packed-batch.js";
import type { Seed } from "./philox.js";
import { SequencePool } from "./sequence-pool.js";
import { SequenceStream } from "./sequence-stream.js";

export interface DocumentBatchesOptions extends ExampleOptions {
  /** T: places of a row. */
  seqLen: number;
  /** B: rows of a batch. */
  batchSize: number;
  /** Of the objectives' random choices; default 0. */
  seed?: Seed;
  /** Token of empty places; default 0. */
  padding?: number;
  /**
   * `"greedy"` (default) fills rows in the order of the documents, and closes them when the next sequence doesn't fit. `"bestFit"` reads sequences ahead and
   * takes the longest that fits, which leaves less padding; each row begins with the sequence that has waited longest.
   */
  packing?: "greedy" | "bestFit";
  /** Sequences that `"bestFit"` reads ahead; default 256. */
  lookAhead?: number;
}

/**
 * Endless batches of packed rows of documents. Beside tokens and targets they have, as `[B, T]` int32:
 * `documents` (number in the row, −1 on padding), `positions` (restarting in each sequence) and `prefix` (leading tokens of the own
 * sequence that see each other): what `attention` of @llmeff/tensor takes.
 *
 * The random choices for a document are keyed by (seed, source, epoch, its number), so a run resumes with the same batches.
 *
 * @example
 * const data = new DocumentBatches(shuffledDocuments(documents, { seed: 1 }), {
 *   seqLen: 1024, batchSize: 8, objectives: "ul2", sentinels: { first: 32_099, count: 200 },
 * });
 */
export class DocumentBatches implements BatchSource {
  readonly seqLen: number;
  readonly batchSize: number;
  readonly #maker: ExampleMaker;
  readonly #pool: SequencePool;
  readonly #padding: number;
  readonly #identity: JsonObject;
  #places = 0;
  #padded = 0;

  /** @throws {OptionError} if an option is out of its domain, or a row too short for an objective */
  constructor(source: DocumentSource, options: DocumentBatchesOptions) {
    const { seqLen, batchSize, seed = 0, padding = 0, packing = "greedy", lookAhead, ...exampleOptions } = options;
    this.seqLen = requireInteger("DocumentBatches", "seqLen", seqLen, 2);
    this.batchSize = requireInteger("DocumentBatches", "batchSize", batchSize, 1);
    this.#maker = new ExampleMaker(seqLen, exampleOptions);
    const ahead = sequencesAhead(packing, lookAhead);
    this.#pool = new SequencePool(new SequenceStream(source, this.#maker, seed), ahead);
    this.#padding = padding;
    const decisive = JSON.stringify({ ...exampleOptions, objectives: this.#maker.objectives, padding, ahead });
    this.#identity = { kind: "document-batches", seed: String(seed), seqLen, options: decisive };
  }

  /** Share of the places handed out so far that hold no token. */
  get paddingWaste(): number {
    return this.#places === 0 ? 0 : this.#padded / this.#places;
  }

  /** Sequences so far with fewer hidden spans than asked for; see `limitSpans`. */
  get limited(): number {
    return this.#maker.limited;
  }

  async next(): Promise<Batch> {
    const rows: Example[][] = [];
    for (let row = 0; row < this.batchSize; row++) rows.push(await this.#pool.row(this.seqLen));
    this.#places += this.batchSize * this.seqLen;
    this.#padded += this.batchSize * this.seqLen - rows.flat().reduce((sum, { tokens }) => sum + tokens.length, 0);
    return packedBatch(rows, this.seqLen, this.#padding);
  }

  state(): JsonObject {
    return { ...this.#identity, ...this.#pool.state() };
  }

  restore(state: JsonObject): void {
    const { taken } = readState("DocumentBatches.restore", state, this.#identity, ["taken"]);
    this.#pool.restore("DocumentBatches.restore", state, taken);
  }
}

/** In order, one is read ahead: to see whether it fits. */
function sequencesAhead(packing: "greedy" | "bestFit", lookAhead: number | undefined): number {
  if (packing === "bestFit") return requireInteger("DocumentBatches", "lookAhead", lookAhead ?? 256, 1);
  if (packing !== "greedy") {
    throw new OptionError(`[DocumentBatches] packing must be greedy or bestFit; received ${JSON.stringify(packing)}.`);
  }
  if (lookAhead === undefined) return 1;
  throw new OptionError(`[DocumentBatches] lookAhead is for packing: "bestFit"; received ${lookAhead} without it.`);
}
