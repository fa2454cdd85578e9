/** What an evaluation asks of a model, wherever it runs, and what it gets back. */
import { LlmeffError } from "@llmeff/native/errors";
import type { Message, Sample } from "../sample.js";
import type { Overhead } from "../tokens/budget.js";
import type { Tokenizer } from "../tokens/tokenizer.js";

/** Tokens of one reply, as the model counted them. */
export interface Usage {
  /** All tokens of the prompt, cached ones included. */
  promptTokens: number;
  /** All tokens written, those of the reasoning included. */
  completionTokens: number;
  reasoningTokens?: number;
  /** The part of `promptTokens` that came from the endpoint's own prefix cache. */
  cachedTokens?: number;
}

/** Why a reply ended: by itself or at a stop text, at the token limit, by a content filter, or with an error. */
export type Finish = "stop" | "length" | "filter" | "error";

export interface GenRequest {
  /** One of `messages` and `prompt`; a chat model takes messages, a completion model either. */
  messages?: readonly Message[];
  prompt?: string;
  /** Most tokens to write: answer and reasoning together. */
  maxTokens: number;
  /** 0 takes the likeliest token; default: the model's own. */
  temperature?: number;
  seed?: number;
  stop?: readonly string[];
  /** The same for every try of one request: an endpoint that heeds it answers a repeated one without writing, or billing, it again. */
  idempotencyKey?: string;
  /** The sample that the request is made from. For models that stand in for others; a real one doesn't look at it. */
  sample?: Sample;
  signal?: AbortSignal;
}

/** What an endpoint says is left of its limits. */
export interface RateLimitState {
  remainingRequests?: number;
  remainingTokens?: number;
  resetRequestsMs?: number;
  resetTokensMs?: number;
}

export interface GenResult {
  /** The answer, without what the endpoint reports as reasoning. */
  text: string;
  /** The reasoning, where an endpoint reports it apart; it's never scored. */
  reasoning?: string;
  finish: Finish;
  usage?: Usage;
  /** Milliseconds from the request to the first piece of text. */
  ttftMs?: number;
  totalMs: number;
  rateLimit?: RateLimitState;
  /** What the endpoint said beside that: its id, its model's name. */
  raw?: Readonly<Record<string, unknown>>;
}

export interface EvalModel {
  /** Names the model in results and reports. */
  readonly id: string;
  readonly kind: "chat" | "completion";
  /** Tokens that prompt and reply may have together, if it is known. */
  readonly contextWindow?: number;
  readonly tokenizer?: Tokenizer;
  /** What its way to write messages adds to their contents, where that is known. */
  readonly overhead?: Overhead;
  /** Tokens of a document that `tokenLogProbs` takes at the most; default `contextWindow`. */
  readonly documentWindow?: number;
  /**
   * All that changes what it answers, beside the request: address, headers, further body fields. A part of the key under which a reply is
   * kept; it never holds a secret.
   */
  readonly fingerprint?: Readonly<Record<string, unknown>>;
  /** @throws {ModelError} that says what is to be done about it */
  generate(request: GenRequest): Promise<GenResult>;
  /**
   * Natural logarithm of the probability of each token given all before it; NaN for the first, unless the model begins every text with a token of its own.
   *
   * @param options.from - the first position whose value is wanted; default 0
   * @param options.chunk - tokens of one pass
   */
  tokenLogProbs?(ids: Int32Array, options?: { from?: number; chunk?: number }): Promise<Float64Array>;
  close?(): Promise<void>;
}

/**
 * What a failed request calls for: `retry` it; count it as `contextExceeded` or `refused`, which another try wouldn't change;
 * give this request up as an `error`; or `stop` the run, as no request can succeed (key, address, model, money).
 */
export type FailureKind = "retry" | "contextExceeded" | "refused" | "error" | "stop";

export interface FailureFacts {
  /** HTTP status, if there was a reply. */
  status?: number;
  /** What the endpoint asks to wait. */
  retryAfterMs?: number;
  /** The endpoint has too many requests: fewer at a time. */
  overloaded?: boolean;
  cause?: unknown;
}

/** A request that brought no reply. */
export class ModelError extends LlmeffError {
  readonly kind: FailureKind;
  readonly status: number | undefined;
  readonly retryAfterMs: number | undefined;
  readonly overloaded: boolean;

  constructor(kind: FailureKind, message: string, facts: FailureFacts = {}) {
    super("ERR_MODEL", message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.kind = kind;
    this.status = facts.status;
    this.retryAfterMs = facts.retryAfterMs;
    this.overloaded = facts.overloaded ?? false;
  }
}
