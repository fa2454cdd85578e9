/** Packed training rows of documents: each row holds whole sequences of an objective mixture, which don't see each other. */
import { type Batch, type BatchSource, IGNORE_INDEX, type JsonObject, readState, requireInteger } from "./batch.js";
import type { Example } from "./denoising.js";
import type { DocumentSource, DrawnDocument } from "./documents.js";
import { ExampleMaker, type ExampleOptions } from "./examples.js";
import { packedRow } from "./packing.js";
import type { Seed } from "./philox.js";
import { Random } from "./random.js";

export interface DocumentBatchesOptions extends ExampleOptions {
  /** T: places of a row. */
  seqLen: number;
  /** B: rows of a batch. */
  batchSize: number;
  /** Of the objectives' random choices; default 0. */
  seed?: Seed;
  /** Token of empty places; default 0. */
  padding?: number;
}

/** A document that is being cut into sequences. */
interface Open {
  /** The source's state before this document, from which it can be had again. */
  before: JsonObject;
  examples: Generator<Example>;
  /** Sequences taken of it. */
  taken: number;
  /** The next, made but not yet taken. */
  ready: Example | undefined;
}

/**
 * Endless batches of packed rows, filled greedily in the order of the documents. Beside tokens and targets they have, as `[B, T]` int32:
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
  readonly #source: DocumentSource;
  readonly #maker: ExampleMaker;
  readonly #seed: Seed;
  readonly #padding: number;
  readonly #identity: JsonObject;
  #open: Open | undefined;
  /** Sequences of the next document that a restored state had already taken. */
  #skip = 0;
  #places = 0;
  #padded = 0;

  /** @throws {OptionError} if an option is out of its domain, or a row too short for an objective */
  constructor(source: DocumentSource, options: DocumentBatchesOptions) {
    const { seqLen, batchSize, seed = 0, padding = 0, ...exampleOptions } = options;
    this.seqLen = requireInteger("DocumentBatches", "seqLen", seqLen, 2);
    this.batchSize = requireInteger("DocumentBatches", "batchSize", batchSize, 1);
    this.#maker = new ExampleMaker(seqLen, exampleOptions);
    this.#source = source;
    this.#seed = seed;
    this.#padding = padding;
    const decisive = JSON.stringify({ ...exampleOptions, objectives: this.#maker.objectives, padding });
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
    const { seqLen, batchSize } = this;
    const size = batchSize * seqLen;
    const tokens = new Int32Array(size).fill(this.#padding);
    const targets = new Int32Array(size).fill(IGNORE_INDEX);
    const [documents, positions, prefix] = [new Int32Array(size), new Int32Array(size), new Int32Array(size)];
    for (let row = 0; row < size; row += seqLen) {
      const examples = await this.#row();
      const packed = packedRow(
        examples.map((example) => example.tokens.length),
        seqLen,
      );
      documents.set(packed.documents, row);
      positions.set(packed.positions, row);
      for (const [i, example] of examples.entries()) {
        const start = row + packed.cumulativeLengths[i]!;
        tokens.set(example.tokens, start);
        targets.set(example.targets, start);
        prefix.fill(example.prefixLength, start, start + example.tokens.length);
      }
      this.#padded += seqLen - packed.cumulativeLengths.at(-1)!;
    }
    this.#places += size;
    const shape = [batchSize, seqLen];
    const extras = {
      documents: { data: documents, shape },
      positions: { data: positions, shape },
      prefix: { data: prefix, shape },
    };
    return { tokens, targets, batchSize, seqLen, extras };
  }

  state(): JsonObject {
    const { before, taken } = this.#open ?? { before: this.#source.state(), taken: this.#skip };
    return { ...this.#identity, source: before, taken };
  }

  restore(state: JsonObject): void {
    const { taken } = readState("DocumentBatches.restore", state, this.#identity, ["taken"]);
    this.#source.restore(state.source as JsonObject);
    this.#open = undefined;
    this.#skip = taken;
  }

  async #row(): Promise<Example[]> {
    const row: Example[] = [];
    let room = this.seqLen;
    while (room > 0) {
      const open = await this.#peek();
      if (open.ready!.tokens.length > room) break;
      row.push(open.ready!);
      room -= open.ready!.tokens.length;
      open.ready = undefined;
      open.taken += 1;
    }
    return row;
  }

  /** The document whose next sequence is ready. */
  async #peek(): Promise<Open> {
    for (;;) {
      this.#open ??= await this.#next();
      const open = this.#open;
      open.ready ??= open.examples.next().value as Example | undefined;
      if (open.ready !== undefined) return open;
      this.#open = undefined;
    }
  }

  async #next(): Promise<Open> {
    const before = this.#source.state();
    const drawn = await this.#source.next();
    const examples = this.#maker.examples(drawn.tokens, this.#random(drawn));
    for (let i = 0; i < this.#skip; i++) examples.next();
    const open = { before, examples, taken: this.#skip, ready: undefined };
    this.#skip = 0;
    return open;
  }

  #random({ source, epoch, index }: DrawnDocument): Random {
    return new Random(this.#seed, `objectives/${source}/${epoch}`, index);
  }
}
