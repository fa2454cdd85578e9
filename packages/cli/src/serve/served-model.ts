/** A model that requests are answered with: its tokenizer, its way to write conversations, and its batch of sequences. */
import { randomInt } from "node:crypto";
import { basename } from "node:path";
import type { Tokenizer } from "@llmeff/data";
import { flatPrompt } from "@llmeff/longcontext";
import { BatchGenerator } from "@llmeff/models";
import { LlmeffError } from "@llmeff/native/errors";
import { UsageError } from "../errors.js";
import { type ChatMessage, type ChatTemplate, loadChatTemplate } from "../run/chat-template.js";
import { type LoadedModel, type LoadModelOptions, loadModel } from "../run/load-model.js";
import type { WriteOptions } from "../run/write-text.js";
import { ApiError, badField } from "./api-error.js";
import type { CompletionRequest } from "./completion-request.js";
import type { GenerationRequest } from "./request-fields.js";
import { TokenTexts } from "./token-texts.js";
import { TokenizerThread, type TokenizerThreadOptions } from "./tokenizer-thread.js";
import { type Prompt, writeChoice } from "./write-choice.js";

export interface ServedModelOptions
  extends Pick<LoadModelOptions, "device">,
    Pick<TokenizerThreadOptions, "onFailure"> {
  /** What requests call it; default the name of its folder. */
  name?: string | undefined;
  /** Sequences that are written at a time; default 16. */
  maxSequences?: number | undefined;
  /** Tokens of prompt and answer together; default what the model is prepared for, which is also the most. */
  maxContext?: number | undefined;
  /** The program of the tokenizer's thread; default what is built with this package. */
  tokenizerProgram?: URL | undefined;
}

export class ServedModel implements AsyncDisposable {
  readonly created = Math.floor(Date.now() / 1000);
  readonly batch: BatchGenerator;
  readonly #texts: TokenTexts;
  readonly #thread: TokenizerThread;

  private constructor(
    readonly name: string,
    private readonly loaded: LoadedModel,
    readonly tokenizer: Tokenizer,
    /** Undefined where the checkpoint has none: conversations are then written as `flatPrompt` does. */
    private readonly template: ChatTemplate | undefined,
    /** Most tokens of prompt and answer together. */
    readonly contextLength: number,
    maxSequences: number | undefined,
    thread: TokenizerThreadOptions,
  ) {
    this.#texts = new TokenTexts(tokenizer);
    this.#thread = new TokenizerThread(tokenizer, thread);
    this.batch = new BatchGenerator(loaded.model, loaded.params, maxSequences === undefined ? {} : { maxSequences });
  }

  /**
   * @param path - as `loadModel` takes it
   * @throws {UsageError} if the model has no tokenizer, or less room than is asked for
   */
  static async open(path: string, options: ServedModelOptions = {}): Promise<ServedModel> {
    const { device, name = basename(path), maxSequences, maxContext, tokenizerProgram: program, onFailure } = options;
    const loaded = await loadModel(path, { device });
    try {
      const { tokenizer, checkpoint, model } = loaded;
      if (tokenizer === undefined) {
        throw new UsageError(`[serve] ${checkpoint} has no tokenizer.json; without it there is no text to serve.`);
      }
      const { maxSeqLen } = model.config;
      if (maxContext !== undefined && maxContext > maxSeqLen) {
        throw new UsageError(
          `[serve] the model is prepared for ${maxSeqLen} tokens; received a context of ${maxContext}.`,
        );
      }
      const template = loaded.source === undefined ? undefined : await loadChatTemplate(checkpoint);
      const thread = { program, onFailure };
      return new ServedModel(name, loaded, tokenizer, template, maxContext ?? maxSeqLen, maxSequences, thread);
    } catch (error) {
      loaded[Symbol.dispose]();
      throw error;
    }
  }

  get hasChatTemplate(): boolean {
    return this.template !== undefined;
  }

  /** @throws {ApiError} for a conversation that the template refuses, or whose text the tokenizer can't write */
  async chatPrompt(messages: readonly ChatMessage[], signal?: AbortSignal): Promise<Int32Array> {
    // A template writes the special tokens itself.
    const [text, addSpecialTokens] =
      this.template === undefined ? [flatPrompt(messages), true] : [rendered(this.template, messages), false];
    const [ids] = await this.#encode("messages", [text], addSpecialTokens, signal);
    return ids!;
  }

  /** @throws {ApiError} for a text that the tokenizer can't write, as one of characters may not, or a token that isn't of the model's */
  async prompts(
    { prompts, echo }: Pick<CompletionRequest, "prompts" | "echo">,
    signal?: AbortSignal,
  ): Promise<Prompt[]> {
    const texts = prompts.filter((prompt) => typeof prompt === "string");
    if (texts.length > 0) {
      const ids = await this.#encode("prompt", texts, true, signal);
      return texts.map((text, i) => ({ ids: ids[i]!, ...(echo ? { echo: text } : {}) }));
    }
    const ids = prompts.map((prompt) => this.#checkedTokens(prompt as number[]));
    const echoes = echo ? await this.#thread.decode(ids, signal) : [];
    return ids.map((ids, i) => ({ ids, ...(echo ? { echo: echoes[i]! } : {}) }));
  }

  async #encode(
    param: string,
    texts: readonly string[],
    addSpecialTokens: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Int32Array[]> {
    try {
      return await this.#thread.encode(texts, addSpecialTokens, signal);
    } catch (cause) {
      if (!(cause instanceof LlmeffError)) throw cause;
      throw new ApiError(400, `${param}: ${cause.message}`, { param, cause });
    }
  }

  #checkedTokens(ids: readonly number[]): Int32Array {
    const wrong = ids.find((id) => id >= this.vocabSize);
    if (wrong === undefined) return Int32Array.from(ids);
    throw badField("prompt", `prompt: there is no token ${wrong}; ids are below ${this.vocabSize}.`);
  }

  /** Rows of the model beyond the tokenizer's tokens pad its table: they have no text. */
  get vocabSize(): number {
    return Math.min(this.tokenizer.vocabSize, this.loaded.model.config.vocabSize);
  }

  /**
   * Tokens that an answer may have.
   *
   * @throws {ApiError} if prompt and answer don't fit
   */
  roomFor(prompt: ArrayLike<number>, param: string, { maxTokens, defaultMaxTokens }: GenerationRequest): number {
    const room = this.contextLength - prompt.length;
    if (prompt.length === 0) {
      throw badField(param, `${param}: there is nothing to continue, not even a token that begins a text.`);
    }
    if ((maxTokens ?? 1) <= room) return maxTokens ?? Math.min(room, defaultMaxTokens);
    const answer = maxTokens === undefined ? "" : ` and asks for ${maxTokens} more`;
    throw badField(
      param,
      `This model's maximum context length is ${this.contextLength} tokens. The request has ${prompt.length} in the prompt${answer}.`,
      "context_length_exceeded",
    );
  }

  /**
   * What a request says of each of its answers; the first with the seed that was asked for.
   *
   * @param scoresEcho - whether the scores of the prompt are told; the first answer finds them
   */
  choiceOptions(request: GenerationRequest, maxTokens: number, scoresEcho: boolean): (n: number) => WriteOptions {
    const { sampling, stop, seed = randomInt(2 ** 47), topLogProbs = 0 } = request;
    const { stopTokens } = this.loaded;
    const { vocabSize } = this;
    const unknown = Object.keys(sampling.logitBias ?? {}).find((id) => Number(id) >= vocabSize);
    if (unknown !== undefined) {
      throw badField("logit_bias", `logit_bias: there is no token ${unknown}; ids are below ${vocabSize}.`);
    }
    const common = { ...sampling, maxTokens, stop, stopTokens, topLogProbs };
    return (n) => ({ ...common, promptLogProbs: scoresEcho && n === 0, seed: seedOf(seed, n) });
  }

  write(prompt: Prompt, options: WriteOptions) {
    const { batch, tokenizer } = this;
    return writeChoice({ batch, tokenizer, texts: this.#texts }, prompt, options);
  }

  /** @throws {ApiError} for another name */
  requireName(name: string): void {
    if (name === this.name) return;
    throw new ApiError(404, `The model \`${name}\` does not exist; this server has \`${this.name}\`.`, {
      param: "model",
      code: "model_not_found",
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#thread[Symbol.asyncDispose]();
    await this.batch[Symbol.asyncDispose]();
    this.loaded[Symbol.dispose]();
  }
}

/** Seeds of further answers lie far from each other, so that neighbouring seeds of two requests have no answers in common. */
function seedOf(seed: number, n: number): number {
  return n === 0 ? seed : ((seed % 2 ** 52) + n * 2_654_435_761_001) % 2 ** 52;
}

function rendered(template: ChatTemplate, messages: readonly ChatMessage[]): string {
  try {
    return template.render(messages);
  } catch (cause) {
    const told = (cause as Error).message;
    throw new ApiError(400, `The model's chat template refuses these messages: ${told}`, { param: "messages", cause });
  }
}
