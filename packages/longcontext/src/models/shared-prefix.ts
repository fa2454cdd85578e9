/** The rows that one request leaves to the next, if both begin alike. Loads the native engine: only for `local.ts`. */
import { KvCache, type ResolvedConfig } from "@llmeff/models";

export class SharedPrefix {
  #ids: ArrayLike<number> = [];
  #cache: KvCache | undefined;

  /** @param rollback - tokens of question and answer that windowed layers can go back by */
  constructor(
    private readonly config: ResolvedConfig,
    private readonly rollback: number,
  ) {}

  /**
   * A cache that holds the beginning of a prompt: what the last one had in common with it, but for its own last token; nothing where the model can't
   * go back so far.
   *
   * @param expected - positions that prompt and answer will have
   */
  begin(prompt: ArrayLike<number>, expected: number): KvCache {
    const cache = this.#goBack(prompt) ?? this.#begin(expected);
    this.#ids = prompt;
    return cache;
  }

  #goBack(prompt: ArrayLike<number>): KvCache | undefined {
    const cache = this.#cache;
    if (cache === undefined || this.#depends(prompt.length)) return undefined;
    const shared = Math.min(cache.length, commonLength(this.#ids, prompt), prompt.length - 1);
    if (shared <= 0 || shared < cache.earliest) return undefined;
    cache.truncate(shared);
    return cache;
  }

  #begin(expected: number): KvCache {
    this.dispose();
    this.#cache = new KvCache(this.config, { expected, rollback: this.rollback });
    return this.#cache;
  }

  /** Whether the rows depend on the length of the sequence, as under dynamic scaling. */
  #depends(length: number): boolean {
    const { ropeScaling } = this.config;
    return ropeScaling?.type === "dynamic" && length > ropeScaling.originalLength;
  }

  dispose(): void {
    this.#cache?.dispose();
    this.#cache = undefined;
    this.#ids = [];
  }
}

function commonLength(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const most = Math.min(a.length, b.length);
  for (let i = 0; i < most; i++) if (a[i] !== b[i]) return i;
  return most;
}
