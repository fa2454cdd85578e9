/** Replies of OpenAI's two generation APIs, whole or as a stream, as one result. */
import { type Finish, ModelError, type Usage } from "./eval-model.js";

interface Choice {
  text?: string | null;
  message?: Piece;
  delta?: Piece;
  finish_reason?: string | null;
}

/** Servers name the reasoning in two ways. */
interface Piece {
  content?: string | null;
  reasoning_content?: string | null;
  reasoning?: string | null;
  refusal?: string | null;
}

interface Payload {
  id?: string;
  model?: string;
  choices?: Choice[];
  usage?: Record<string, unknown> | null;
  error?: unknown;
}

export interface Reply {
  text: string;
  reasoning?: string;
  finish: Finish;
  usage?: Usage;
  raw: Record<string, unknown>;
}

/** Puts a reply together from one payload, or from those of a stream. */
export class ReplyBuilder {
  #text = "";
  #reasoning = "";
  #refusal = "";
  #finish: string | undefined;
  #usage: Usage | undefined;
  #raw: Record<string, unknown> = {};
  #choices = 0;

  /** Whether any text has come. */
  get started(): boolean {
    return this.#text !== "" || this.#reasoning !== "" || this.#refusal !== "";
  }

  /** Whether the endpoint has said that the reply is at its end. */
  get finished(): boolean {
    return this.#finish !== undefined;
  }

  /** @returns the payload's `error` object as JSON, if it has one */
  add(json: string): string | undefined {
    const payload = parsed(json);
    if (payload.error !== undefined && payload.error !== null) return JSON.stringify({ error: payload.error });
    const choice = payload.choices?.[0];
    if (choice !== undefined) {
      this.#choices++;
      const piece = choice.delta ?? choice.message ?? {};
      this.#text += piece.content ?? choice.text ?? "";
      this.#reasoning += piece.reasoning_content ?? piece.reasoning ?? "";
      this.#refusal += piece.refusal ?? "";
      this.#finish = choice.finish_reason ?? this.#finish;
    }
    this.#usage = usageOf(payload.usage) ?? this.#usage;
    for (const name of ["id", "model"] as const) if (payload[name] !== undefined) this.#raw[name] = payload[name];
    return undefined;
  }

  /** @throws {ModelError} of the kind `retry` if no answer was in it */
  reply(): Reply {
    if (this.#choices === 0) {
      throw new ModelError("retry", "[http] the reply holds no answer (no `choices`); expected OpenAI's format.");
    }
    return {
      text: this.#text === "" ? this.#refusal : this.#text,
      ...(this.#reasoning === "" ? {} : { reasoning: this.#reasoning }),
      finish: this.#refusal !== "" && this.#text === "" ? "filter" : finishOf(this.#finish),
      ...(this.#usage === undefined ? {} : { usage: this.#usage }),
      raw: this.#raw,
    };
  }
}

function parsed(json: string): Payload {
  try {
    const value: unknown = JSON.parse(json);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // Told below.
  }
  const shown = json.length > 80 ? `${json.slice(0, 80)}…` : json;
  throw new ModelError("retry", `[http] expected a JSON object in the reply; received ${JSON.stringify(shown)}.`);
}

function finishOf(reason: string | undefined): Finish {
  switch (reason) {
    case "length":
    case "max_tokens":
      return "length";
    case "content_filter":
    case "refusal":
      return "filter";
    case "error":
      return "error";
    default:
      return "stop";
  }
}

function usageOf(usage: Record<string, unknown> | null | undefined): Usage | undefined {
  const count = (holder: unknown, name: string): number | undefined => {
    const value = (holder as Record<string, unknown> | null | undefined)?.[name];
    return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  };
  const promptTokens = count(usage, "prompt_tokens");
  if (promptTokens === undefined) return undefined;
  const reasoningTokens = count(usage?.completion_tokens_details, "reasoning_tokens");
  const cachedTokens = count(usage?.prompt_tokens_details, "cached_tokens");
  return {
    promptTokens,
    completionTokens: count(usage, "completion_tokens") ?? 0,
    ...(reasoningTokens === undefined ? {} : { reasoningTokens }),
    ...(cachedTokens === undefined ? {} : { cachedTokens }),
  };
}
