/** One sequence of a batch, from its prompt to its end. */
import { OptionError } from "@llmeff/tensor";
import type { KvCache } from "../cache.js";
import { ahead, type Chosen, type TokenDraws } from "./decode-step.js";
import { Draws } from "./draws.js";
import { likeliest } from "./log-probs.js";
import type { GeneratedToken, Request } from "./options.js";
import {
  adjustsScores,
  checkLargest,
  drawToken,
  type History,
  notNumbers,
  sampleToken,
  tokenProbabilities,
} from "./sampling.js";
import type { NewTokens, Scored, Scores } from "./scorer.js";
import { checkDrafted, type DraftCounts } from "./speculation.js";
import { TokenIds } from "./token-ids.js";
import { TokenStream, type TokenStreamOptions } from "./token-stream.js";

export interface SequenceEvents extends Pick<TokenStreamOptions, "capacity" | "onRoom"> {
  /** Called once, when the sequence has ended or was left; its caches are the listener's, if it had joined. */
  onLeave(sequence: Sequence, caches: SequenceCaches | undefined): void;
}

/** What a sequence remembers, of the model and where there is one of the draft model. */
export interface SequenceCaches {
  cache: KvCache;
  draft: KvCache | undefined;
}

interface Drafted {
  id: number;
  /** Those by which it was drawn. */
  probabilities: Float64Array;
}

/** Caches of callers that a sequence is writing into, of any batch: a second one would write over its rows. */
const lent = new WeakSet<KvCache>();

function borrow(cache: KvCache): void {
  if (lent.has(cache)) {
    throw new OptionError(
      "[generate] expected a cache that no other sequence is using; another one is still being written into it. Wait for its end, or give each a clone().",
    );
  }
  lent.add(cache);
}

export class Sequence {
  readonly stream: TokenStream<GeneratedToken>;
  readonly #ids: TokenIds;
  /** The tokens of the prompt, where a penalty falls on them. */
  readonly #prompt: ReadonlySet<number>;
  /** How often each token was drawn; while a draft is made or checked, its tokens too. */
  readonly #counts = new Map<number, number>();
  readonly #draws: Draws;
  readonly #draftDraws: Draws;
  readonly #keepDraws: Draws;
  #drafted: Drafted[] = [];
  #drawn = 0;
  #caches: SequenceCaches | undefined;
  #ended = false;
  #failed = false;

  constructor(
    readonly request: Request,
    private readonly events: SequenceEvents,
  ) {
    const { prompt, seed, signal, sampling, cache } = request;
    if (cache !== undefined) borrow(cache);
    this.#ids = new TokenIds(prompt);
    this.#prompt = new Set(sampling.repetitionPenalty === 1 ? [] : prompt);
    this.#draws = new Draws(seed, "token");
    this.#draftDraws = new Draws(seed, "draft");
    this.#keepDraws = new Draws(seed, "keep");
    this.stream = new TokenStream({ ...events, onLeave: () => this.#leave() });
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort, { once: true });
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Whether it ended by an error or an abort. */
  get failed(): boolean {
    return this.#failed;
  }

  /** The prompt and what was drawn. */
  get ids(): Int32Array {
    return this.#ids.view();
  }

  get length(): number {
    return this.#ids.length;
  }

  /** Undefined before it joins the batch, and after its end. */
  get caches(): SequenceCaches | undefined {
    return this.#caches;
  }

  /** Tokens that may still be drawn. */
  get left(): number {
    return this.request.count - this.#drawn;
  }

  /** Joins the batch with caches that are empty or hold the beginning of the prompt, and are the sequence's from here on. */
  begin(caches: SequenceCaches): void {
    this.#caches = caches;
  }

  /** Tokens that the model hasn't seen. */
  get pending(): number {
    return this.#ids.length - this.#caches!.cache.length;
  }

  /** Of these, how many can't be given to the model in parts. */
  get indivisible(): number {
    return Math.max(1, this.request.indivisible - this.#caches!.cache.length);
  }

  /** The first `length` tokens that the model hasn't seen, with the drafted ones if these are all. */
  input(length: number): NewTokens {
    const { cache } = this.#caches!;
    const ids = this.#ids.view(cache.length, cache.length + length);
    const targets = this.#targets(cache.length, length);
    if (length < this.pending) return { ...this.#newTokens(ids, cache, 0), ...targets };
    const drafted = this.#drafted.map(({ id }) => id);
    return { ...this.#newTokens([...ids, ...drafted], cache, 1 + drafted.length), ...targets };
  }

  /** The tokens of the prompt that follow some of it, where they are to be scored. */
  #targets(from: number, length: number): Pick<NewTokens, "targets"> {
    const { prompt, promptLogProbs, topLogProbs } = this.request;
    const ids = prompt.subarray(from + 1, from + 1 + length);
    return promptLogProbs && ids.length > 0 ? { targets: { ids, top: topLogProbs } } : {};
  }

  /** What the draft model hasn't seen of the first `end` tokens, drafted ones included. */
  draftInput(end: number, scored: number): NewTokens {
    const cache = this.#caches!.draft!;
    const ids = this.#ids.view(cache.length, end);
    if (end <= this.length) return this.#newTokens(ids, cache, scored);
    return this.#newTokens([...ids, ...this.#drafted.slice(-1).map(({ id }) => id)], cache, scored);
  }

  #newTokens(ids: ArrayLike<number>, cache: KvCache, scored: number): NewTokens {
    const { vocabSize, prefix } = this.request;
    return { ids, cache, scored, vocabSize, prefix, left: this.left };
  }

  /** Makes sure of the random numbers of the next tokens, and of those that the device draws before these are read. */
  async prepareDraws(tokens: number): Promise<void> {
    if (this.request.sampling.temperature === 0) return;
    const needed = tokens > 1 ? [this.#draws, this.#draftDraws, this.#keepDraws] : [this.#draws];
    await Promise.all(needed.map((draws) => draws.reach(this.#drawn + tokens + ahead)));
  }

  /** Takes a drafted token, by the scores of the draft model after the last one. */
  propose({ logits }: Scores): void {
    if (this.#ended) return;
    this.#orFail(() => {
      const probabilities = this.#probabilities(logits);
      const id = drawToken(probabilities, this.#draftDraws.at(this.#drawn + this.#drafted.length));
      this.#drafted.push({ id, probabilities });
      this.#count(id, 1);
    });
  }

  /**
   * Takes the scores of the prompt's tokens, and the next tokens, if these are the scores after the last one and the drafted ones; all if somebody
   * still wants them.
   */
  take({ next: scores, targets }: Scored, counts?: DraftCounts): void {
    if (this.#ended) return;
    this.#orFail(() => {
      if (targets.some(({ logProb }) => Number.isNaN(logProb))) throw notNumbers();
      for (const token of targets) this.stream.push(token);
    });
    if (this.pending <= 1 && this.left === 0) this.end();
    if (this.#ended || this.pending > 0) return;
    const drafted = this.#drafted;
    this.#drafted = [];
    for (const { id } of drafted) this.#count(id, -1);
    this.#orFail(() => {
      const accepted = this.#check(drafted, scores);
      if (counts !== undefined) {
        counts.drafted += drafted.length;
        counts.accepted += accepted;
      }
      if (this.#ended) return;
      // What follows the last drafted token that was right was computed after wrong ones.
      const { cache, draft } = this.#caches!;
      for (const each of draft === undefined ? [cache] : [cache, draft])
        each.truncate(Math.min(each.length, this.#ids.length - 1));
    });
  }

  /** Whether the next token, drawn by the model's own scores, is all that it asks for: these needn't be read. */
  get needsNoScores(): boolean {
    const { sampling, topLogProbs } = this.request;
    return this.#caches?.draft === undefined && topLogProbs === 0 && !adjustsScores(sampling);
  }

  get draws(): TokenDraws {
    return { sampling: this.request.sampling, at: (after) => this.#draws.at(this.#drawn + after) };
  }

  /** Takes what the device has drawn as the next token, if somebody still wants it. */
  takeChosen({ id, logit, logSumExp, largest }: Chosen): void {
    if (this.#ended || this.pending > 0) return;
    this.#orFail(() => {
      checkLargest(largest, this.request.sampling.temperature);
      this.#push({ id, logProb: logit - logSumExp, top: [] });
    });
  }

  /** Gives the drafted tokens that are right, and one more. @returns how many were right */
  #check(drafted: readonly Drafted[], scores: readonly Scores[]): number {
    for (const [i, { id, probabilities }] of drafted.entries()) {
      const p = this.#probabilities(scores[i]!.logits);
      const at = this.#drawn;
      const chosen = checkDrafted(p, probabilities, id, this.#keepDraws.at(at), this.#draws.at(at));
      this.#give(chosen, scores[i]!);
      if (chosen !== id) return i;
      if (this.#ended) return i + 1;
    }
    const last = scores.at(-1)!;
    const id = sampleToken(last.logits, this.request.sampling, this.#history, this.#draws.at(this.#drawn));
    this.#give(id, last);
    return drafted.length;
  }

  #probabilities(logits: ArrayLike<number>): Float64Array {
    return tokenProbabilities(logits, this.request.sampling, this.#history);
  }

  get #history(): History {
    return { prompt: this.#prompt, drawn: this.#counts };
  }

  #count(id: number, by: 1 | -1): void {
    const count = (this.#counts.get(id) ?? 0) + by;
    if (count === 0) this.#counts.delete(id);
    else this.#counts.set(id, count);
  }

  #give(id: number, { logits, logSumExp }: Scores): void {
    const withLogProb = (id: number) => ({ id, logProb: logits[id]! - logSumExp });
    this.#push({ ...withLogProb(id), top: likeliest(logits, this.request.topLogProbs).map(withLogProb) });
  }

  #push(token: GeneratedToken): void {
    const { stopTokens } = this.request;
    const { id } = token;
    this.#drawn++;
    this.#ids.push(id);
    this.#count(id, 1);
    this.stream.push(token);
    if (this.left === 0 || stopTokens.has(id)) this.end();
  }

  end(): void {
    this.stream.end();
    this.#leave();
  }

  fail(error: unknown): void {
    this.#failed ||= !this.#ended;
    this.stream.fail(error);
    this.#leave();
  }

  #orFail(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.fail(error);
    }
  }

  readonly #abort = (): void => {
    this.fail(this.request.signal!.reason);
  };

  #leave(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.request.signal?.removeEventListener("abort", this.#abort);
    const caches = this.#caches;
    this.#caches = undefined;
    if (this.request.cache !== undefined) lent.delete(this.request.cache);
    this.events.onLeave(this, caches);
  }
}
