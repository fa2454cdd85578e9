/** One sequence of a batch, from its prompt to its end. */
import type { KvCache } from "../cache.js";
import { Draws } from "./draws.js";
import { likeliest } from "./log-probs.js";
import type { GeneratedToken, Request } from "./options.js";
import { drawToken, tokenProbabilities } from "./sampling.js";
import { TokenStream, type TokenStreamOptions } from "./token-stream.js";

/** What the model says about the next token of one sequence. */
export interface Scores {
  /** `[vocabSize]` */
  logits: Float32Array | Float64Array;
  /** Of these logits. */
  logSumExp: number;
}

export interface SequenceEvents extends Pick<TokenStreamOptions, "capacity" | "onRoom"> {
  /** Called once, when the sequence has ended or was left. */
  onLeave(sequence: Sequence): void;
}

export class Sequence {
  readonly stream: TokenStream<GeneratedToken>;
  /** The prompt and what was drawn. */
  readonly #ids: number[];
  readonly #seen: Set<number>;
  readonly #counts = new Map<number, number>();
  readonly #draws: Draws;
  #drawn = 0;
  #cache: KvCache | undefined;
  #ended = false;

  constructor(
    readonly request: Request,
    private readonly events: SequenceEvents,
  ) {
    this.#ids = [...request.prompt];
    this.#seen = new Set(request.prompt);
    this.#draws = new Draws(request.seed);
    this.stream = new TokenStream({ ...events, onLeave: () => this.#leave() });
    const { signal } = request;
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort, { once: true });
  }

  get ended(): boolean {
    return this.#ended;
  }

  get cache(): KvCache | undefined {
    return this.#cache;
  }

  /** Joins the batch with an empty cache, which is the sequence's from here on. */
  begin(cache: KvCache): void {
    this.#cache = cache;
  }

  /** Tokens that the model hasn't seen. */
  get pending(): number {
    return this.#ids.length - this.#cache!.length;
  }

  /** Of these, how many can't be given to the model in parts. */
  get indivisible(): number {
    return Math.max(1, this.request.indivisible - this.#cache!.length);
  }

  /** The first of the tokens that the model hasn't seen. */
  next(length: number): number[] {
    const from = this.#cache!.length;
    return this.#ids.slice(from, from + length);
  }

  /** What the forward pass is to know of the prompt's prefix. */
  get prefix(): { prefix?: number } {
    return this.request.prefix > 0 ? { prefix: this.request.prefix } : {};
  }

  async prepareDraw(): Promise<void> {
    if (this.request.sampling.temperature > 0) await this.#draws.reach(this.#drawn + 1);
  }

  /** Draws the next token, if these are the scores after the last one and somebody still wants it. */
  take(scores: Scores): void {
    if (this.#ended || this.pending > 0) return;
    try {
      this.#give(scores);
    } catch (error) {
      this.fail(error);
    }
  }

  #give({ logits, logSumExp }: Scores): void {
    const { sampling, stopTokens, count, topLogProbs } = this.request;
    const history = { seen: this.#seen, drawn: this.#counts };
    const id = drawToken(tokenProbabilities(logits, sampling, history), this.#draws.at(this.#drawn));
    this.#drawn++;
    this.#ids.push(id);
    this.#seen.add(id);
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    const withLogProb = (id: number) => ({ id, logProb: logits[id]! - logSumExp });
    this.stream.push({ ...withLogProb(id), top: likeliest(logits, topLogProbs).map(withLogProb) });
    if (this.#drawn === count || stopTokens.has(id)) this.end();
  }

  end(): void {
    this.stream.end();
    this.#leave();
  }

  fail(error: unknown): void {
    this.stream.fail(error);
    this.#leave();
  }

  readonly #abort = (): void => {
    this.fail(this.request.signal!.reason);
  };

  #leave(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.request.signal?.removeEventListener("abort", this.#abort);
    this.#cache?.dispose();
    this.events.onLeave(this);
  }
}
