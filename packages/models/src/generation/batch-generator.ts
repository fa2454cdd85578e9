/** Many sequences over one model at once ("continuous batching"). */
import { type Device, DisposedError, logSumExp, scope, slice, type Tensor, tensor } from "@llmeff/tensor";
import { KvCache } from "../cache.js";
import type { ForwardOptions } from "../forward-options.js";
import type { Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import { checkInteger, type GeneratedToken, type Request, resolveRequest, type SequenceOptions } from "./options.js";
import { type Scores, Sequence } from "./sequence.js";

export interface BatchOptions extends Pick<ForwardOptions, "state"> {
  /** Sequences in the batch at most; further ones wait. Default 16. */
  maxSequences?: number;
  /** Tokens of prompts that go through the model in one step beside those of the sequences that are being written; default 256. */
  prefillChunk?: number;
  /** Tokens drawn before their reader asks for them; a sequence whose reader is slower waits, the others don't. Default 4. */
  readAhead?: number;
}

/** New tokens of a sequence in a step. */
interface Part {
  sequence: Sequence;
  length: number;
}

/**
 * Continues sequences of different lengths together: a step is one forward pass over the next token of each, with a chunk of the prompts that
 * have come. The weights are read once for all; each sequence attends to its own cache. Sequences join and leave between steps.
 *
 * @example
 * using batch = new BatchGenerator(model, params, { maxSequences: 8 });
 * const write = async (prompt: Int32Array) => {
 *   for await (const { id, logProb } of batch.generate(prompt, { maxTokens: 100 })) console.log(id, logProb);
 * };
 * await Promise.all(prompts.map(write));
 */
export class BatchGenerator {
  readonly #maxSequences: number;
  readonly #prefillChunk: number;
  readonly #readAhead: number;
  readonly #forward: ForwardOptions;
  readonly #device: Device | undefined;
  /** In the order of the calls. */
  readonly #waiting: Sequence[] = [];
  readonly #active: Sequence[] = [];
  #running: Promise<void> | undefined;
  #disposed = false;

  /** @throws {OptionError} for an option outside its domain */
  constructor(
    private readonly model: Transformer,
    private readonly params: Parameters,
    { maxSequences = 16, prefillChunk = 256, readAhead = 4, state }: BatchOptions = {},
  ) {
    checkInteger("maxSequences", maxSequences, 1);
    checkInteger("prefillChunk", prefillChunk, 1, Number.POSITIVE_INFINITY);
    checkInteger("readAhead", readAhead, 1);
    this.#maxSequences = maxSequences;
    this.#prefillChunk = prefillChunk;
    this.#readAhead = readAhead;
    this.#forward = state === undefined ? {} : { state };
    this.#device = Object.values(params)[0]?.device;
  }

  /** Sequences in the batch. */
  get active(): number {
    return this.#active.length;
  }

  /** Sequences that wait for room. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Draws tokens one at a time, each the next of the prompt and those before it. The sequence joins the batch when there is room, in the order of
   * the calls; leaving the iterator (`break`, `return()`, an abort) frees its rows at once.
   *
   * @param prompt - at least one token id
   * @throws {OptionError} {@link IndexOutOfRangeError} at the call, for a prompt or an option that can't be used
   */
  generate(prompt: ArrayLike<number>, options: SequenceOptions): AsyncGenerator<GeneratedToken, undefined, undefined> {
    if (this.#disposed) throw new DisposedError("[BatchGenerator] it was disposed. Make another one.");
    const request = resolveRequest(this.model.config, prompt, options);
    const sequence = new Sequence(request, {
      capacity: this.#readAhead,
      onRoom: () => this.#wake(),
      onLeave: (left) => this.#remove(left),
    });
    if (request.count === 0) sequence.end();
    if (sequence.ended) return sequence.stream;
    this.#waiting.push(sequence);
    this.#wake();
    return sequence.stream;
  }

  /** Frees the rows of all sequences; those who still read are told by a {@link DisposedError}. The model and its parameters are the caller's. */
  dispose(): void {
    this.#disposed = true;
    for (const sequence of [...this.#active, ...this.#waiting])
      sequence.fail(new DisposedError("[BatchGenerator] it was disposed while this sequence was being written."));
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Disposes, and waits for the step that the device may still be computing. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose();
    await this.#running;
  }

  #remove(sequence: Sequence): void {
    for (const list of [this.#active, this.#waiting]) {
      const at = list.indexOf(sequence);
      if (at >= 0) list.splice(at, 1);
    }
    this.#wake();
  }

  #wake(): void {
    this.#running ??= this.#run();
  }

  /** Steps until no sequence can go on: all wait for their readers. */
  async #run(): Promise<void> {
    // Calls of the same turn come together into the first step.
    await undefined;
    for (;;) {
      this.#admit();
      const parts = this.#plan();
      if (parts.length === 0) break;
      await this.#step(parts);
    }
    this.#running = undefined;
  }

  #admit(): void {
    while (this.#active.length < this.#maxSequences && this.#waiting.length > 0) {
      const sequence = this.#waiting.shift()!;
      sequence.begin(new KvCache(this.model.config, { expected: expectedLength(sequence.request) }));
      this.#active.push(sequence);
    }
  }

  /** One token of every sequence that is being written and whose reader keeps up, and a chunk of the prompts in the order of their coming. */
  #plan(): Part[] {
    let room = this.#prefillChunk;
    const parts: Part[] = [];
    for (const sequence of this.#active) {
      if (sequence.stream.full) continue;
      const { pending } = sequence;
      const length = pending === 1 ? 1 : Math.min(pending, Math.max(room, room > 0 ? sequence.indivisible : 0));
      if (length === 0) continue;
      if (pending > 1) room = Math.max(0, room - length);
      parts.push({ sequence, length });
    }
    return parts;
  }

  async #step(parts: readonly Part[]): Promise<void> {
    let scores: Scores[];
    try {
      scores = await this.#scores(parts);
      await Promise.all(parts.map(({ sequence }) => sequence.prepareDraw()));
    } catch (error) {
      // Nobody knows which of their caches are whole.
      for (const { sequence } of parts) sequence.fail(error);
      return;
    }
    for (const [i, { sequence }] of parts.entries()) sequence.take(scores[i]!);
  }

  /** The scores after the last of the new tokens of each part. */
  async #scores(parts: readonly Part[]): Promise<Scores[]> {
    const vocabSizes = [...new Set(parts.map(({ sequence }) => sequence.request.vocabSize))];
    const [logits, ...sums] = scope(() => {
      const ids = Int32Array.from(parts.flatMap(({ sequence, length }) => sequence.next(length)));
      const tokens = tensor(ids, { shape: [1, ids.length], device: this.#device });
      const rows = parts.map(({ sequence, length }) => ({ cache: sequence.cache!, length, ...sequence.prefix }));
      const scores = this.model.lastLogits(this.params, tokens, rows, this.#forward);
      // As numbers: `data` gives those of half-precision models as bits.
      const wide = scores.dtype === "float64" ? scores : scores.astype("float32");
      return [wide, ...vocabSizes.map((n) => logSumExp(slice(wide, 1, 0, n), { axis: 1 }))] as [Tensor, ...Tensor[]];
    });
    try {
      const [values, ...totals] = (await Promise.all([logits, ...sums].map((x) => x.data()))) as Float32Array[];
      const V = this.model.config.vocabSize;
      return parts.map(({ sequence }, i) => {
        const { vocabSize } = sequence.request;
        return {
          logits: values!.subarray(i * V, i * V + vocabSize),
          logSumExp: totals[vocabSizes.indexOf(vocabSize)]![i]!,
        };
      });
    } finally {
      for (const x of [logits, ...sums]) x.dispose();
    }
  }
}

/** Positions to make room for at first: a sequence may end long before it has as many as it may. */
function expectedLength({ prompt, count }: Request): number {
  return prompt.length + Math.min(count, 256) - 1;
}
