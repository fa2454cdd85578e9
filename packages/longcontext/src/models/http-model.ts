/** Models behind an OpenAI-compatible endpoint: chat completions and completions. */
import { OptionError } from "@llmeff/native/errors";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { type EvalModel, type GenRequest, type GenResult, ModelError } from "./eval-model.js";
import { flatPrompt } from "./flat-prompt.js";
import { failureOf, rateLimitOf } from "./http-failure.js";
import { HttpConnections, type HttpReply, type Timeouts } from "./http-transport.js";
import { type Reply, ReplyBuilder } from "./openai-reply.js";
import { sseData } from "./sse.js";

export interface HttpModelOptions {
  /** Names it in results; default the model's name. */
  id?: string;
  /** `/chat/completions` (default) or `/completions`. */
  api?: "chat" | "completions";
  /** Environment variable that holds the key; without one no key is sent. The key itself is kept nowhere else. */
  keyEnv?: string;
  env?: Readonly<Record<string, string | undefined>>;
  headers?: Readonly<Record<string, string>>;
  /** Further fields of every request's body, such as `reasoning_effort`. */
  body?: Readonly<Record<string, unknown>>;
  /** Replies in pieces; default true. */
  stream?: boolean;
  timeouts?: Partial<Timeouts>;
  contextWindow?: number;
  tokenizer?: Tokenizer;
}

/** What endpoints differ in, found out from what they refuse: the first 400 that names a field changes it for all later requests. */
interface Dialect {
  limitField: "max_tokens" | "max_completion_tokens";
  streamOptions: boolean;
}

/**
 * A model at `baseUrl` (`http://127.0.0.1:8000/v1`).
 *
 * @throws {OptionError} if the address is none, or the variable of the key is empty
 *
 * @example
 * const model = httpModel("http://127.0.0.1:8000/v1", "qwen3-8b", { keyEnv: "MY_KEY" });
 */
export function httpModel(baseUrl: string, model: string, options: HttpModelOptions = {}): EvalModel {
  return new HttpModel(baseUrl, model, options);
}

class HttpModel implements EvalModel {
  readonly id: string;
  readonly kind: "chat" | "completion";
  readonly contextWindow?: number;
  readonly tokenizer?: Tokenizer;
  readonly #url: URL;
  readonly #model: string;
  readonly #options: HttpModelOptions;
  readonly #key: string | undefined;
  readonly #connections: HttpConnections;
  #dialect: Dialect;

  constructor(baseUrl: string, model: string, options: HttpModelOptions) {
    const { api = "chat", id = model, contextWindow, tokenizer } = options;
    this.id = id;
    this.kind = api === "chat" ? "chat" : "completion";
    this.#url = endpointUrl(baseUrl, api === "chat" ? "chat/completions" : "completions");
    this.#model = model;
    this.#options = options;
    this.#key = keyFrom(options);
    this.#connections = new HttpConnections(options.timeouts);
    this.#dialect = {
      limitField: this.#url.hostname === "api.openai.com" && api === "chat" ? "max_completion_tokens" : "max_tokens",
      streamOptions: true,
    };
    if (contextWindow !== undefined) this.contextWindow = contextWindow;
    if (tokenizer !== undefined) this.tokenizer = tokenizer;
  }

  /** Header names only: their values may be secret. */
  get fingerprint(): Record<string, unknown> {
    const { headers = {}, body = {} } = this.#options;
    return { url: this.#url.href, model: this.#model, headers: Object.keys(headers).sort(), body };
  }

  async generate(request: GenRequest): Promise<GenResult> {
    const start = performance.now();
    for (;;) {
      const dialect = this.#dialect;
      const reply = await this.#connections.send({
        method: "POST",
        url: this.#url,
        headers: this.#headers(request),
        body: JSON.stringify(this.#body(request, dialect)),
        signal: request.signal,
      });
      if (reply.status >= 200 && reply.status < 300) return this.#result(reply, start);
      const said = await readStart(reply.body);
      const next = reply.status === 400 ? adapted(dialect, said) : undefined;
      if (next === undefined) throw this.#failure(reply.status, reply.headers, said);
      this.#dialect = next;
    }
  }

  async close(): Promise<void> {
    this.#connections.close();
  }

  async #result(reply: HttpReply, start: number): Promise<GenResult> {
    const builder = new ReplyBuilder();
    let ttftMs: number | undefined;
    try {
      for await (const data of payloads(reply)) {
        if (data === "[DONE]") break;
        const error = builder.add(data);
        if (error !== undefined) throw this.#failure(200, reply.headers, error);
        if (builder.started) ttftMs ??= performance.now() - start;
      }
    } catch (error) {
      throw error instanceof ModelError ? this.#withoutKey(error) : error;
    }
    // A server that is killed may end a stream in good order: only the reason of the end shows that nothing is missing.
    if (isStream(reply) && !builder.finished) {
      throw new ModelError("retry", `[${this.#url.host}] the stream ended before the answer did.`);
    }
    const { raw, ...answer }: Reply = builder.reply();
    const rateLimit = rateLimitOf(reply.headers);
    return {
      ...answer,
      ...(ttftMs === undefined ? {} : { ttftMs }),
      totalMs: performance.now() - start,
      ...(rateLimit === undefined ? {} : { rateLimit }),
      raw,
    };
  }

  #headers(request: GenRequest): Record<string, string> {
    return {
      "content-type": "application/json",
      accept: this.#options.stream === false ? "application/json" : "text/event-stream, application/json",
      ...(request.idempotencyKey === undefined ? {} : { "idempotency-key": request.idempotencyKey }),
      ...this.#options.headers,
      ...(this.#key === undefined ? {} : { authorization: `Bearer ${this.#key}` }),
    };
  }

  #body(request: GenRequest, { limitField, streamOptions }: Dialect): Record<string, unknown> {
    const { messages, prompt, maxTokens, temperature, seed, stop } = request;
    const stream = this.#options.stream ?? true;
    return {
      model: this.#model,
      ...(this.kind === "chat"
        ? { messages: messages ?? [{ role: "user", content: prompt ?? "" }] }
        : { prompt: prompt ?? flatPrompt(messages ?? []) }),
      [limitField]: maxTokens,
      ...(temperature === undefined ? {} : { temperature }),
      ...(seed === undefined ? {} : { seed }),
      ...(stop === undefined || stop.length === 0 ? {} : { stop }),
      ...(stream ? { stream, ...(streamOptions ? { stream_options: { include_usage: true } } : {}) } : {}),
      ...this.#options.body,
    };
  }

  #failure(status: number, headers: HttpReply["headers"], body: string): ModelError {
    const { keyEnv } = this.#options;
    const keyAdvice =
      keyEnv === undefined
        ? "Name the environment variable that holds the key."
        : `Is the key in the environment variable ${keyEnv} right?`;
    return this.#withoutKey(failureOf(status, headers, body, { url: this.#url, model: this.#model, keyAdvice }));
  }

  /** Endpoints repeat the key that they refuse, or a part of it. */
  #withoutKey(error: ModelError): ModelError {
    if (this.#key !== undefined) error.message = error.message.replaceAll(this.#key, "<key>");
    error.message = error.message.replace(/\bsk-[\w*.-]{4,}/g, "<key>");
    return error;
  }
}

/** A model as an endpoint lists it. */
export interface EndpointModel {
  name: string;
  /** Tokens that prompt and reply may have together, where the endpoint tells. */
  contextWindow?: number;
}

/**
 * The models that GET `/models` lists; costs nothing.
 *
 * @throws {ModelError} if the endpoint gives no list
 */
export async function listModels(
  baseUrl: string,
  options: Pick<HttpModelOptions, "keyEnv" | "env" | "headers" | "timeouts"> = {},
): Promise<EndpointModel[]> {
  const url = endpointUrl(baseUrl, "models");
  const key = keyFrom(options);
  const connections = new HttpConnections({ firstByteMs: 30_000, ...options.timeouts });
  try {
    const headers = { ...options.headers, ...(key === undefined ? {} : { authorization: `Bearer ${key}` }) };
    const reply = await connections.send({ method: "GET", url, headers });
    const text = await readAll(reply.body);
    const list = reply.status === 200 ? (JSON.parse(text) as { data?: unknown }).data : undefined;
    if (!Array.isArray(list)) throw new Error(`status ${reply.status}`);
    return list.map(({ id, max_model_len: most }) => ({
      name: String(id),
      ...(Number.isSafeInteger(most) ? { contextWindow: most } : {}),
    }));
  } catch (cause) {
    if (cause instanceof ModelError) throw cause;
    const reason = (cause as Error).message;
    throw new ModelError("stop", `[http] ${url.href} lists no models (${reason}). Name the model yourself.`, { cause });
  } finally {
    connections.close();
  }
}

function endpointUrl(baseUrl: string, path: string): URL {
  let url: URL;
  try {
    url = new URL(`${baseUrl.replace(/\/+$/, "")}/${path}`);
  } catch (cause) {
    throw new OptionError(
      `[httpModel] expected an address such as http://127.0.0.1:8000/v1; received ${JSON.stringify(baseUrl)}.`,
      { cause },
    );
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new OptionError(`[httpModel] expected an http or https address; received one of "${url.protocol}".`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new OptionError(
      "[httpModel] the address holds a password. Put the key into an environment variable instead.",
    );
  }
  return url;
}

function keyFrom({ keyEnv, env = process.env }: Pick<HttpModelOptions, "keyEnv" | "env">): string | undefined {
  if (keyEnv === undefined) return undefined;
  const key = env[keyEnv]?.trim();
  if (key === undefined || key === "") {
    throw new OptionError(`[httpModel] the environment variable ${keyEnv} is empty. Set it to the endpoint's key.`);
  }
  return key;
}

function isStream({ headers }: HttpReply): boolean {
  return (headers["content-type"] ?? "").includes("text/event-stream");
}

async function* payloads(reply: HttpReply): AsyncGenerator<string> {
  if (isStream(reply)) yield* sseData(reply.body);
  else yield await readAll(reply.body);
}

function adapted(dialect: Dialect, said: string): Dialect | undefined {
  if (dialect.streamOptions && said.includes("stream_options")) return { ...dialect, streamOptions: false };
  // The refusal of one names the other, the one to use, as well.
  if (dialect.limitField === "max_tokens" && said.includes("max_completion_tokens")) {
    return { ...dialect, limitField: "max_completion_tokens" };
  }
  if (dialect.limitField === "max_completion_tokens" && said.includes("max_completion_tokens")) {
    return /unsupported|unrecognized|unknown|extra|not permitted/i.test(said)
      ? { ...dialect, limitField: "max_tokens" }
      : undefined;
  }
  return undefined;
}

async function readAll(pieces: AsyncIterable<Buffer>): Promise<string> {
  const all: Buffer[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all).toString("utf8");
}

/** Enough of an error's body to tell what it is about; the rest is read, so that the connection can serve again. */
async function readStart(pieces: AsyncIterable<Buffer>, most = 65_536): Promise<string> {
  const start: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const piece of pieces) {
      if (bytes < most) start.push(piece);
      bytes += piece.length;
    }
  } catch {
    // The status says enough.
  }
  return Buffer.concat(start).toString("utf8", 0, most);
}
