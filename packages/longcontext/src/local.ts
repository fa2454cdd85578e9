/**
 * Models of `@llmeff/models` in this process. An entry point of its own, since it loads the native engine; all else of the package works
 * without.
 */
import { type Tokenizer as DataTokenizer, StopStrings, StreamingDecoder } from "@llmeff/data";
import {
  BatchGenerator,
  generateTokens,
  KvCache,
  kvCacheBytes,
  type Parameters,
  type SequenceOptions,
  type Transformer,
} from "@llmeff/models";
import { crossEntropyParts, scope, tensor } from "@llmeff/tensor";
import { type EvalModel, type GenRequest, type GenResult, ModelError } from "./models/eval-model.js";
import { type ChatTemplate, LocalPrompts } from "./models/local-prompts.js";
import { SharedPrefix } from "./models/shared-prefix.js";
import { Turns } from "./models/turns.js";
import { requireInteger } from "./require-integer.js";
import { sha256 } from "./runner/identity.js";
import { fromTokenizer } from "./tokens/tokenizer.js";

export type { ChatTemplate } from "./models/local-prompts.js";

export interface LocalModelOptions {
  /** Names it in results. */
  id: string;
  /** What samples call the tokenizer; default the model's id. */
  tokenizerId?: string;
  /** Names the state of the parameters, such as by a digest of their file; replies of another one are asked for again. Without it, they are told apart by their number alone. */
  revision?: string;
  /** Ends an answer beside the texts of a request, such as the end-of-text token. */
  stopTokens?: readonly number[];
  /** How the model was trained to read conversations; default: as one text (`flatPrompt`), as base models do. */
  chatTemplate?: ChatTemplate | undefined;
  /** Tokens of a prompt that go through the model at a time; default 2048. */
  prefillChunk?: number;
  /**
   * Requests that are answered in one batch, each with a key-value cache of its own; default 1. The weights are read once for all, so that answers of many tokens
   * come several times as fast. Greedy answers are those of each request alone, up to rounding; drawn ones too, since each has its own seed.
   */
  batch?: number;
  /** Memory for the caches of a batch, one more than it has requests; default 4 GiB. A prompt that is too long for its share is answered alone. */
  batchBytes?: number;
  /**
   * Tokens at the end of a prompt, with its answer, that may be other ones in the next request without the common beginning going through the model
   * again. Only layers with windows need to know: they hold as many more rows. Default 4096; in a batch no such rows are held.
   */
  rollback?: number;
}

/**
 * A model in this process: greedy or sampled generation over a key-value cache, and exact log-probabilities. What a prompt has in common with the one
 * before doesn't go through the model again (`usage.cachedTokens`): ask the questions about one text in a row. The rows of the last prompt are held until the next or
 * `close`. Requests that come while others are answered join their batch, or wait. The parameters stay the caller's.
 *
 * @throws {OptionError} for an option outside its domain
 *
 * @example
 * const model = localModel(transformer, params, tokenizer, { id: "runs/shakespeare", batch: 8 });
 */
export function localModel(
  model: Transformer,
  params: Parameters,
  tokenizer: DataTokenizer,
  options: LocalModelOptions,
): EvalModel {
  const local = new LocalModel(model, params, tokenizer, options);
  const { id, tokenizerId = id, revision, stopTokens = [], chatTemplate, prefillChunk = 2048 } = options;
  const { prompts } = local;
  const { maxSeqLen } = model.config;
  const template = prompts.identity;
  // All scores of these are wanted: of a large vocabulary a few tokens at a time, so that they take at most 256 MB.
  const scoredChunk = Math.max(1, Math.min(prefillChunk, Math.floor(2 ** 26 / model.config.vocabSize)));
  return {
    id,
    kind: chatTemplate === undefined ? "completion" : "chat",
    contextWindow: maxSeqLen,
    documentWindow: maxSeqLen - prompts.begin.length,
    tokenizer: fromTokenizer(tokenizerId, tokenizer),
    overhead: prompts.overhead,
    fingerprint: {
      local: id,
      parameters: model.parameterCount,
      ...(revision === undefined ? {} : { revision }),
      ...(prompts.begin.length === 0 ? {} : { beginTokens: Array.from(prompts.begin) }),
      ...(stopTokens.length === 0 ? {} : { stopTokens }),
      ...(template === undefined ? {} : { chatTemplate: sha256(template) }),
    },
    generate: async (request) => local.answer(request),
    tokenLogProbs: async (ids, { from = 0, chunk = scoredChunk } = {}) => local.logProbs(ids, from, chunk),
    close: () => local.close(),
  };
}

class LocalModel {
  readonly prompts: LocalPrompts;
  readonly #turns = new Turns();
  readonly #prefix: SharedPrefix;
  /** What is being answered together, and one cache of what was. */
  #batch: BatchGenerator | undefined;

  constructor(
    private readonly model: Transformer,
    private readonly params: Parameters,
    private readonly tokenizer: DataTokenizer,
    private readonly options: LocalModelOptions,
  ) {
    const { id, chatTemplate, rollback = 4096, batch = 1 } = options;
    requireInteger("localModel", "batch", batch, 1);
    this.prompts = new LocalPrompts(id, tokenizer, chatTemplate);
    this.#prefix = new SharedPrefix(model.config, rollback);
  }

  /** @throws {ModelError} where prompt and answer are longer than the model is prepared for, or the template refuses the messages */
  answer(request: GenRequest): Promise<GenResult> {
    const { maxSeqLen } = this.model.config;
    const { maxTokens } = request;
    const prompt = this.prompts.tokensOf(request);
    if (prompt.length + maxTokens > maxSeqLen) {
      throw new ModelError(
        "contextExceeded",
        `[local] the prompt has ${prompt.length} tokens and the answer up to ${maxTokens}; the context of ${this.options.id} has ${maxSeqLen}.`,
      );
    }
    return this.#sharesBatch(prompt.length + maxTokens)
      ? this.#turns.together(() => this.#answerInBatch(request, prompt))
      : this.#turns.alone(() => this.#answerAlone(request, prompt));
  }

  #sharesBatch(positions: number): boolean {
    const { batch = 1, batchBytes = 4 * 2 ** 30 } = this.options;
    const bytesPerValue = this.#parameter.dtype === "float64" ? 8 : this.#parameter.dtype === "float32" ? 4 : 2;
    return batch > 1 && (batch + 1) * kvCacheBytes(this.model.config, positions, { bytesPerValue }) <= batchBytes;
  }

  get #parameter() {
    return Object.values(this.params)[0]!;
  }

  #answerInBatch(request: GenRequest, prompt: Int32Array): Promise<GenResult> {
    const { batch = 1, prefillChunk = 2048 } = this.options;
    this.#prefix.dispose();
    this.#batch ??= new BatchGenerator(this.model, this.params, {
      maxSequences: batch,
      prefillChunk,
      keptSequences: 1,
    });
    const generator = this.#batch;
    return this.#written(request, prompt, (sampling) => generator.generate(prompt, sampling));
  }

  async #answerAlone(request: GenRequest, prompt: Int32Array): Promise<GenResult> {
    await this.#closeBatch();
    const { prefillChunk = 2048 } = this.options;
    const cache = this.#prefix.begin(prompt, Math.max(1, prompt.length + request.maxTokens));
    try {
      return await this.#written(request, prompt, (sampling) =>
        generateTokens(this.model, this.params, prompt, { ...sampling, prefillChunk, cache }),
      );
    } catch (error) {
      this.#prefix.dispose(); // a pass that failed may have left its rows in some of the layers
      throw error;
    }
  }

  async #written(
    { maxTokens, temperature = 0, seed = 0, stop = [], signal }: GenRequest,
    prompt: Int32Array,
    generate: (options: SequenceOptions) => AsyncIterable<{ id: number }>,
  ): Promise<GenResult> {
    const { stopTokens = [] } = this.options;
    const start = performance.now();
    const decoder = new StreamingDecoder(this.tokenizer, prompt);
    const stopStrings = new StopStrings(stop);
    let cachedTokens = 0;
    let completionTokens = 0;
    let text = "";
    let ttftMs: number | undefined;
    let ended = false;
    const sampling: SequenceOptions = {
      maxTokens,
      // Rows of the model beyond the tokenizer's tokens pad its table: they have no text.
      vocabSize: Math.min(this.tokenizer.vocabSize, this.model.config.vocabSize),
      temperature,
      seed,
      stopTokens,
      onJoin: (remembered) => {
        cachedTokens = remembered;
      },
      ...(signal === undefined ? {} : { signal }),
    };
    for await (const { id } of generate(sampling)) {
      ttftMs ??= performance.now() - start;
      ended = stopTokens.includes(id);
      if (ended) break;
      completionTokens++;
      text += stopStrings.push(decoder.push(id));
      if (stopStrings.found !== undefined) break;
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

  /** `log p(ids[i] | ids[0 .. i))` for `i ≥ from`; NaN for a first token that has nothing before it, not even one that begins a text. */
  logProbs(ids: Int32Array, from: number, chunk: number): Promise<Float64Array> {
    requireInteger("tokenLogProbs", "from", from, 0);
    requireInteger("tokenLogProbs", "chunk", chunk, 1);
    const { length: begun } = this.prompts.begin;
    return this.#turns.alone(async () => {
      this.#prefix.dispose();
      await this.#closeBatch();
      const values = await this.#logProbs(this.prompts.document(ids), begun + from, chunk);
      return values.subarray(begun + from);
    });
  }

  async #logProbs(ids: Int32Array, from: number, chunk: number): Promise<Float64Array> {
    const { model, params } = this;
    const { device } = this.#parameter;
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
    return values;
  }

  /** Frees the caches of what was answered together. */
  async #closeBatch(): Promise<void> {
    const batch = this.#batch;
    this.#batch = undefined;
    await batch?.[Symbol.asyncDispose]();
  }

  close(): Promise<void> {
    return this.#turns.alone(async () => {
      this.#prefix.dispose();
      await this.#closeBatch();
    });
  }
}
