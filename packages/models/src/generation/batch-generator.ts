/** Many sequences over one model at once ("continuous batching"). */
import { DisposedError } from "@llmeff/tensor";
import { KvCache } from "../cache.js";
import type { ResolvedConfig } from "../config.js";
import type { Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import { checkInteger, type GeneratedToken, type Request, resolveRequest, type SequenceOptions } from "./options.js";
import { canLend, disposeCaches, KeptCaches, type KnownTokens, sharedLength } from "./prompt-reuse.js";
import { Scorer, type ScorerOptions } from "./scorer.js";
import { Sequence, type SequenceCaches } from "./sequence.js";
import { type DraftCounts, Drafter, type DraftModel } from "./speculation.js";

export interface BatchOptions extends ScorerOptions {
  /** Sequences in the batch at most; further ones wait. Default 16. */
  maxSequences?: number;
  /** Tokens of prompts that go through the model in one step beside those of the sequences that are being written; default 256. */
  prefillChunk?: number;
  /** Tokens drawn before their reader asks for them; a sequence whose reader is slower waits, the others don't. Default 4. */
  readAhead?: number;
  /**
   * Sequences that have ended whose caches are kept for prompts that begin like them; default 0. Prompts that begin like a sequence in the batch copy
   * its cache anyway.
   */
  keptSequences?: number;
  /** Drafts tokens that the model then checks several of in one pass. Texts have the same distribution, at temperature 0 the same tokens. */
  draft?: DraftModel;
}

/** Tokens of the prompts that have joined the batch. */
export interface PromptCounts {
  /** Those that go through the model. */
  read: number;
  /** Those whose rows were copied from another sequence. */
  reused: number;
}

/** New tokens of a sequence in a step. */
interface Part {
  sequence: Sequence;
  length: number;
  /** Tokens to draft behind them. */
  drafts: number;
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
  readonly #scorer: Scorer;
  readonly #drafter: Drafter | undefined;
  /** In the order of the calls. */
  readonly #waiting: Sequence[] = [];
  readonly #active: Sequence[] = [];
  readonly #kept: KeptCaches;
  readonly #prompts: PromptCounts = { read: 0, reused: 0 };
  #running: Promise<void> | undefined;
  #disposed = false;

  /** @throws {OptionError} for an option outside its domain */
  constructor(
    private readonly model: Transformer,
    params: Parameters,
    { maxSequences = 16, prefillChunk = 256, readAhead = 4, keptSequences = 0, draft, ...scoring }: BatchOptions = {},
  ) {
    checkInteger("maxSequences", maxSequences, 1);
    checkInteger("prefillChunk", prefillChunk, 1, Number.POSITIVE_INFINITY);
    checkInteger("readAhead", readAhead, 1);
    checkInteger("keptSequences", keptSequences, 0);
    this.#kept = new KeptCaches(keptSequences);
    this.#maxSequences = maxSequences;
    this.#prefillChunk = prefillChunk;
    this.#readAhead = readAhead;
    this.#scorer = new Scorer(model, params, scoring);
    this.#drafter = draft && new Drafter(draft, model.config, scoring.captureStep);
  }

  /** Tokens of the model's vocabulary. */
  get vocabSize(): number {
    return this.model.config.vocabSize;
  }

  /** Sequences in the batch. */
  get active(): number {
    return this.#active.length;
  }

  /** Sequences that wait for room. */
  get waiting(): number {
    return this.#waiting.length;
  }

  get prompts(): Readonly<PromptCounts> {
    return { ...this.#prompts };
  }

  /** What has come of the drafts of a draft model. */
  get drafts(): Readonly<DraftCounts> {
    return { drafted: 0, accepted: 0, ...this.#drafter?.counts };
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
    this.#drafter?.check(request);
    const sequence = new Sequence(request, {
      capacity: this.#readAhead,
      onRoom: () => this.#wake(),
      onLeave: (left, caches) => this.#remove(left, caches),
    });
    if (request.count === 0 && !(request.promptLogProbs && prompt.length > 1)) sequence.end();
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
    this.#kept.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Disposes, and waits for the step that the device may still be computing. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose();
    await this.#running;
  }

  #remove(sequence: Sequence, caches: SequenceCaches | undefined): void {
    for (const list of [this.#active, this.#waiting]) {
      const at = list.indexOf(sequence);
      if (at >= 0) list.splice(at, 1);
    }
    if (caches !== undefined) this.#scorer.forget(caches.cache);
    if (caches?.draft !== undefined) this.#drafter!.forget(caches.draft);
    if (caches !== undefined && caches.cache === sequence.request.cache) {
      caches.draft?.dispose();
    } else if (caches !== undefined && (sequence.failed || !isReusable(this.model.config, sequence.request))) {
      disposeCaches(caches);
    } else if (caches !== undefined) {
      // The row of the last token, if there is one, may be that of a drafted token in its place.
      const length = Math.min(caches.cache.length, sequence.length - 1);
      this.#kept.add({ ids: sequence.ids.slice(0, length), caches });
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
      this.#active.push(this.#waiting.shift()!);
    }
  }

  /** `#begin`; without the memory for the caches this sequence ends, and no other. */
  #beginOrFail(sequence: Sequence): boolean {
    try {
      return this.#begin(sequence);
    } catch (error) {
      sequence.fail(error);
      return false;
    }
  }

  /**
   * Gives a sequence its caches, with what others remember of the beginning of its prompt.
   *
   * @returns false while another is still reading what both begin with
   */
  #begin(sequence: Sequence): boolean {
    const { request } = sequence;
    const expected = expectedLength(request);
    if (request.cache !== undefined) {
      this.#join(sequence, { cache: request.cache, draft: this.#drafter?.cache(expected) });
      return true;
    }
    const borrows = isReusable(this.model.config, request) && !request.promptLogProbs;
    const [found, shared] = borrows ? this.#lender(request) : [undefined, 0];
    if (found !== undefined && shared > found.caches.cache.length) return false;
    const lend = (cache: KvCache | undefined, rollback: number) =>
      cache !== undefined && canLend(cache, shared) ? cache.clone({ length: shared, expected, rollback }) : undefined;
    const rollback = this.#drafter?.tokens ?? 0;
    const lent = found && lend(found.caches.cache, rollback);
    const cache = lent ?? new KvCache(this.model.config, { expected, rollback });
    // The sequence has the first before the second is made: what fails between them is given back with it.
    const caches: SequenceCaches = { cache, draft: undefined };
    this.#join(sequence, caches);
    caches.draft = this.#drafter && ((found && lend(found.caches.draft, rollback)) ?? this.#drafter.cache(expected));
    if (found !== undefined) this.#kept.touch(found);
    return true;
  }

  #join(sequence: Sequence, caches: SequenceCaches): void {
    const { prompt, onJoin } = sequence.request;
    const { length } = caches.cache;
    sequence.begin(caches);
    this.#prompts.reused += length;
    this.#prompts.read += prompt.length - length;
    onJoin?.(length);
  }

  /** Who remembers most of the beginning of a prompt, or is about to: sequences in the batch, and ended ones. */
  #lender({ prompt }: Request): [KnownTokens | undefined, number] {
    let [best, most]: [KnownTokens | undefined, number] = [undefined, 0];
    const offer = (remembered: KnownTokens, known: number) => {
      const { cache } = remembered.caches;
      const shared = Math.min(sharedLength(prompt, remembered), known);
      if (shared > most && (shared > cache.length || canLend(cache, shared))) [best, most] = [remembered, shared];
    };
    for (const { ids, caches, request } of this.#active) {
      // The last token is always still to be read; of a prompt that is being read, the others are soon known.
      if (caches !== undefined && isReusable(this.model.config, request)) offer({ ids, caches }, ids.length - 1);
    }
    for (const kept of this.#kept) offer(kept, kept.ids.length);
    return [best, most];
  }

  /** One token of every sequence that is being written and whose reader keeps up, and a chunk of the prompts in the order of their coming. */
  #plan(): Part[] {
    let room = this.#prefillChunk;
    const parts: Part[] = [];
    for (const sequence of [...this.#active]) {
      if (sequence.caches === undefined && !this.#beginOrFail(sequence)) continue;
      if (sequence.stream.full) continue;
      const { pending } = sequence;
      const length = pending === 1 ? 1 : Math.min(pending, Math.max(room, room > 0 ? sequence.indivisible : 0));
      if (length === 0) continue;
      if (pending > 1) room = Math.max(0, room - length);
      parts.push({ sequence, length, drafts: (pending === 1 && this.#drafter?.most(sequence)) || 0 });
    }
    return parts;
  }

  async #step(parts: readonly Part[]): Promise<void> {
    try {
      await Promise.all(parts.map(({ sequence, drafts }) => sequence.prepareDraws(1 + drafts)));
      await this.#draft(parts);
      const going = parts.filter(({ sequence }) => !sequence.ended);
      if (going.length === 0) return;
      const inputs = going.map(({ sequence, length }) => sequence.input(length));
      if (going.every(({ sequence }) => sequence.needsNoScores)) {
        // Nothing is awaited before a pass begins: a sequence that leaves meanwhile would take its cache away.
        const draws = going.map(({ sequence }) => sequence.draws);
        const step = this.#scorer.chosen(inputs, draws);
        if (step !== undefined) {
          for (const [i, next] of (await step).entries()) going[i]!.sequence.takeChosen(next);
          return;
        }
      }
      const scores = await this.#scorer.score(inputs);
      for (const [i, { sequence }] of going.entries()) sequence.take(scores[i]!, this.#drafter?.counts);
    } catch (error) {
      // Nobody knows which of their caches are whole.
      for (const { sequence } of parts) sequence.fail(error);
    }
  }

  async #draft(parts: readonly Part[]): Promise<void> {
    if (this.#drafter === undefined) return;
    // Some may have been left while the random numbers were made.
    const there = parts.filter(({ sequence }) => !sequence.ended);
    const reading = there.filter(({ sequence, length }) => length > 1 || sequence.pending > 1);
    await this.#drafter.read(
      reading.map(({ sequence, length }) => ({ sequence, end: sequence.length - sequence.pending + length })),
    );
    await this.#drafter.draft(there);
  }
}

/** Whether what is remembered of a part of the sequence is the same, whatever follows. */
function isReusable({ ropeScaling }: ResolvedConfig, { indivisible }: Request): boolean {
  return indivisible === 0 && ropeScaling?.type !== "dynamic";
}

/** Positions to make room for at first: a sequence may end long before it has as many as it may. */
function expectedLength({ prompt, count }: Request): number {
  return prompt.length + Math.min(count, 256) - 1;
}
