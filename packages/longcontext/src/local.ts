/**
 * Models of `@llmeff/models` in this process. An entry point of its own, since it loads the native engine; all else of the package works
 * without.
 */
import { type Tokenizer as DataTokenizer, StopStrings, StreamingDecoder } from "@llmeff/data";
import { generate, KvCache, type Parameters, type Transformer } from "@llmeff/models";
import { OptionError } from "@llmeff/native/errors";
import { crossEntropyParts, scope, tensor } from "@llmeff/tensor";
import type { EvalModel, GenRequest, GenResult } from "./models/eval-model.js";
import { flatPrompt } from "./models/flat-prompt.js";
import { SharedPrefix } from "./models/shared-prefix.js";
import { fromTokenizer } from "./tokens/tokenizer.js";

export interface LocalModelOptions {
  /** Names it in results. */
  id: string;
  /** What samples call the tokenizer; default the model's id. */
  tokenizerId?: string;
  /** Ends an answer beside the texts of a request, such as the end-of-text token. */
  stopTokens?: readonly number[];
  /** Tokens of a prompt that go through the model at a time; default 2048. */
  prefillChunk?: number;
  /**
   * Tokens at the end of a prompt, with its answer, that may be other ones in the next request without the common beginning going through the model
   * again. Only layers with windows need to know: they hold as many more rows. Default 4096.
   */
  rollback?: number;
}

/**
 * A model in this process: greedy or sampled generation over a key-value cache, and exact log-probabilities. It has no chat template, so
 * messages become one text (`flatPrompt`). Requests are answered one after the other, and what a prompt has in common with the one before doesn't
 * go through the model again (`usage.cachedTokens`): ask the questions about one text in a row. The rows of the last prompt are held until
 * the next or `close`. The parameters stay the caller's.
 *
 * @example
 * const model = localModel(transformer, params, tokenizer, { id: "runs/shakespeare" });
 */
export function localModel(
  model: Transformer,
  params: Parameters,
  tokenizer: DataTokenizer,
  options: LocalModelOptions,
): EvalModel {
  const { id, tokenizerId = id, stopTokens = [], prefillChunk = 2048, rollback = 4096 } = options;
  const counting = fromTokenizer(tokenizerId, tokenizer);
  const prefix = new SharedPrefix(model.config, rollback);
  let queue: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = queue.then(work);
    queue = turn.catch(() => {});
    return turn;
  };
  return {
    id,
    kind: "completion",
    contextWindow: model.config.maxSeqLen,
    tokenizer: counting,
    fingerprint: { local: id, parameters: model.parameterCount },
    generate: (request) =>
      inTurn(() => answer(model, params, tokenizer, { stopTokens, prefillChunk, prefix }, request)),
    tokenLogProbs: (ids, { from = 0, chunk = prefillChunk } = {}) =>
      inTurn(() => logProbs(model, params, ids, from, chunk)),
    close: () => inTurn(async () => prefix.dispose()),
  };
}

interface Settings {
  stopTokens: readonly number[];
  prefillChunk: number;
  prefix: SharedPrefix;
}

async function answer(
  model: Transformer,
  params: Parameters,
  tokenizer: DataTokenizer,
  { stopTokens, prefillChunk, prefix }: Settings,
  request: GenRequest,
): Promise<GenResult> {
  const { messages = [], maxTokens, temperature = 0, seed = 0, stop = [], signal } = request;
  const prompt = tokenizer.encode(request.prompt ?? flatPrompt(messages), { addSpecialTokens: false });
  const cache = prefix.begin(prompt, Math.min(model.config.maxSeqLen, Math.max(1, prompt.length + maxTokens)));
  const cachedTokens = cache.length;
  const start = performance.now();
  const sampling = {
    maxTokens,
    // Rows of the model beyond the tokenizer's tokens pad its table: they have no text.
    vocabSize: Math.min(tokenizer.vocabSize, model.config.vocabSize),
    temperature,
    seed,
    stopTokens,
    prefillChunk,
    cache,
    ...(signal === undefined ? {} : { signal }),
  };
  const decoder = new StreamingDecoder(tokenizer, prompt);
  const stopStrings = new StopStrings(stop);
  let completionTokens = 0;
  let text = "";
  let ttftMs: number | undefined;
  let ended = false;
  try {
    for await (const id of generate(model, params, prompt, sampling)) {
      ttftMs ??= performance.now() - start;
      ended = stopTokens.includes(id);
      if (ended) break;
      completionTokens++;
      text += stopStrings.push(decoder.push(id));
      if (stopStrings.found !== undefined) break;
    }
  } catch (error) {
    prefix.dispose(); // a pass that failed may have left its rows in some of the layers
    throw error;
  }
  text += stopStrings.push(decoder.end()) + stopStrings.end();
  return {
    text,
    finish: ended || stopStrings.found !== undefined ? "stop" : "length",
    usage: { promptTokens: prompt.length, completionTokens, cachedTokens },
    ...(ttftMs === undefined ? {} : { ttftMs }),
    totalMs: performance.now() - start,
  };
}

/** `log p(ids[i] | ids[0 .. i))` for `i ≥ from`; NaN for the first token, which has nothing before it. */
async function logProbs(
  model: Transformer,
  params: Parameters,
  ids: Int32Array,
  from: number,
  chunk: number,
): Promise<Float64Array> {
  const wholeNumbers = { from, chunk };
  for (const [name, value] of Object.entries(wholeNumbers)) {
    if (!Number.isSafeInteger(value) || value < (name === "from" ? 0 : 1)) {
      throw new OptionError(`[tokenLogProbs] ${name} must be a whole number; received ${value}.`);
    }
  }
  const device = Object.values(params)[0]?.device;
  const values = new Float64Array(ids.length).fill(Number.NaN);
  using cache = new KvCache(model.config, { expected: Math.max(1, ids.length) });
  for (let start = 0; start < ids.length - 1; start += chunk) {
    const end = Math.min(start + chunk, ids.length - 1);
    using tokens = tensor(ids.subarray(start, end), { shape: [1, end - start], device });
    if (end <= from - 1) {
      model.hidden(params, tokens, cache).dispose();
      continue;
    }
    using perToken = scope(() => {
      const targets = tensor(ids.subarray(start + 1, end + 1), { shape: [1, end - start], device });
      return crossEntropyParts(model.logits(params, tokens, cache), targets).perToken;
    });
    for (const [i, loss] of Array.from(await perToken.data()).entries()) values[start + 1 + i] = -loss;
  }
  return values.subarray(from);
}
