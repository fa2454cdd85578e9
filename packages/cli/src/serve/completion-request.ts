/** Bodies of `POST /v1/completions`. */
import { z } from "zod";
import { list, object, wholeNumber } from "../config/fields.js";
import { completionSharedFields, type GenerationRequest, parseBody, sharedSettings } from "./request-fields.js";

export interface CompletionRequest extends GenerationRequest {
  /** Texts, or tokens as they are. */
  prompts: (string | number[])[];
  /** Answers begin with the prompt. */
  echo: boolean;
}

const tokens = list(wholeNumber(), "token ids");
const schema = object({
  ...completionSharedFields,
  prompt: z.union(
    [z.string(), tokens, list(z.string("expected a text."), "texts"), list(tokens, "lists of token ids")],
    {
      error: () => "expected a text, a list of token ids, or a list of either, none empty.",
    },
  ),
});

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

function promptsOf(prompt: z.infer<typeof schema>["prompt"]): (string | number[])[] {
  if (typeof prompt === "string") return [prompt];
  return prompt.every((part) => typeof part === "number") ? [prompt] : prompt;
}
