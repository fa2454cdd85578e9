import { accumulationDType, OptionError, scope, type Tensor, tensor } from "@llmeff/tensor";
import type { KvCache } from "../cache.js";
import type { Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import { Draws } from "./draws.js";
import { checkInteger, type GenerateOptions, type Request, resolveRequest } from "./options.js";
import { drawToken, tokenProbabilities } from "./sampling.js";

/** Options of `continueFrom`. */
export type ContinueOptions = Omit<GenerateOptions, "prefix" | "topLogProbs">;

/**
 * Draws tokens after a prompt of which a cache holds the beginning: questions about one long text take one pass over it, and each a pass over its
 * own words. Draws what `generate` would.
 *
 * @param cache - holds the first tokens of the prompt, not all; none if it is new. It stays the caller's: afterwards it holds the rest of the prompt and
 * what was drawn but for the last token, and `truncate` takes it back to what the next prompt begins with
 * @throws {OptionError} {@link IndexOutOfRangeError} as `generate`; if the cache holds the whole prompt or more, or several sequences; under `dynamic` rotary
 * scaling beyond the original length, where every length is scored by frequencies of its own
 *
 * @example
 * using cache = new KvCache(model.config, { rollback: 256 });
 * for (const question of questions) {
 *   for await (const id of continueFrom(model, params, cache, [...text, ...question], { maxTokens: 20 })) answer.push(id);
 *   cache.truncate(text.length);
 * }
 */
export async function* continueFrom(
  model: Transformer,
  params: Parameters,
  cache: KvCache,
  prompt: ArrayLike<number>,
  { prefillChunk = Number.POSITIVE_INFINITY, state, ...options }: ContinueOptions,
): AsyncGenerator<number> {
  checkInteger("prefillChunk", prefillChunk, 1, Number.POSITIVE_INFINITY);
  const request = resolveRequest(model.config, prompt, options);
  checkCache(cache, request);
  const { signal, sampling, count, stopTokens } = request;
  const device = Object.values(params)[0]?.device;
  const forward = state === undefined ? {} : { state };
  const pass = <T>(ids: readonly number[], run: (tokens: Tensor) => T): T => {
    signal?.throwIfAborted();
    using tokens = tensor(Int32Array.from(ids), { shape: [1, ids.length], device });
    return run(tokens);
  };
  while (request.prompt.length - cache.length > prefillChunk && request.indivisible === 0) {
    const part = request.prompt.slice(cache.length, cache.length + prefillChunk);
    pass(part, (tokens) => model.hidden(params, tokens, cache, forward).dispose());
  }
  const draws = new Draws(request.seed, "token");
  const history = { prompt: new Set(request.prompt), drawn: new Map<number, number>() };
  let next: readonly number[] = request.prompt.slice(cache.length);
  for (let i = 0; i < count; i++) {
    if (sampling.temperature > 0) await draws.reach(i + 1);
    // As numbers: `data` gives those of half-precision models as bits.
    using logits = pass(next, (tokens) =>
      scope(() => {
        const scores = model.lastLogits(params, tokens, cache, forward);
        return scores.astype(accumulationDType(scores.dtype));
      }),
    );
    const scores = ((await logits.data()) as Float32Array | Float64Array).subarray(0, request.vocabSize);
    const id = drawToken(tokenProbabilities(scores, sampling, history), draws.at(i));
    yield id;
    if (stopTokens.has(id)) return;
    history.drawn.set(id, (history.drawn.get(id) ?? 0) + 1);
    next = [id];
  }
}

function checkCache(cache: KvCache, { prompt, indivisible }: Request): void {
  if ((cache.batchSize ?? 1) !== 1) {
    throw new OptionError(`[continueFrom] expected a cache of one sequence; received one of ${cache.batchSize}.`);
  }
  if (cache.length >= prompt.length) {
    throw new OptionError(
      `[continueFrom] the cache holds ${cache.length} positions, and the prompt has ${prompt.length}: at least its last token must be left. Use truncate(${prompt.length - 1}).`,
    );
  }
  if (indivisible > 0 && cache.length > 0) {
    throw new OptionError(
      `[continueFrom] under dynamic rotary scaling a prompt of ${prompt.length} tokens goes through the model at once; ${cache.length} of them are in the cache. Begin with a new one.`,
    );
  }
}
