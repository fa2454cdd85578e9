/** Bodies of `POST /v1/completions`. */
import { z } from "zod";
import { object, show } from "../config/fields.js";
import { badField } from "./api-error.js";
import { completionSharedFields, type GenerationRequest, parseBody, sharedSettings } from "./request-fields.js";

export interface CompletionRequest extends GenerationRequest {
  /** Texts, or tokens as they are. */
  prompts: (string | number[])[];
  /** Answers begin with the prompt. */
  echo: boolean;
}

const schema = object({ ...completionSharedFields, prompt: z.unknown().optional() });

/** @throws {ApiError} naming the field that is wrong */
export function parseCompletionRequest(body: unknown): CompletionRequest {
  const { prompt, echo, logprobs, max_tokens, ...shared } = parseBody(schema, body);
  return {
    ...sharedSettings(shared),
    maxTokens: max_tokens ?? undefined,
    defaultMaxTokens: 16, // OpenAI's
    topLogProbs: logprobs ?? undefined,
    echo: echo ?? false,
    prompts: promptsOf(prompt),
  };
}

/** By hand: a schema takes seconds for a list of some hundred thousand tokens, and nothing else is answered meanwhile. */
function promptsOf(prompt: unknown): (string | number[])[] {
  if (typeof prompt === "string") return [prompt];
  if (!Array.isArray(prompt) || prompt.length === 0) {
    throw badField("prompt", "prompt: expected a text, a list of token ids, or a list of either, none empty.");
  }
  if (typeof prompt[0] === "number") return [tokensOf("prompt", prompt)];
  if (typeof prompt[0] !== "string") return prompt.map((one, i) => tokensOf(`prompt[${i}]`, one));
  const wrong = prompt.findIndex((one) => typeof one !== "string");
  if (wrong < 0) return prompt;
  throw badField(`prompt[${wrong}]`, `prompt[${wrong}]: expected a text; received ${show(prompt[wrong])}.`);
}

function tokensOf(where: string, tokens: unknown): number[] {
  if (!Array.isArray(tokens) || tokens.length === 0) {
    throw badField(where, `${where}: expected a list of token ids; received ${show(tokens)}.`);
  }
  const wrong = tokens.findIndex((id) => !(Number.isSafeInteger(id) && id >= 0));
  if (wrong < 0) return tokens;
  const at = `${where}[${wrong}]`;
  throw badField(at, `${at}: expected an integer of at least 0; received ${show(tokens[wrong])}.`);
}
