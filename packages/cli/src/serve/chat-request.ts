/** Bodies of `POST /v1/chat/completions`. */
import { z } from "zod";
import { object, oneOf, show, text } from "../config/fields.js";
import { isObject } from "../config/merge.js";
import type { ChatMessage } from "../run/chat-template.js";
import { badField } from "./api-error.js";
import { chatSharedFields, type GenerationRequest, parseBody, sharedSettings } from "./request-fields.js";

export interface ChatRequest extends GenerationRequest {
  messages: ChatMessage[];
}

const message = object({
  role: oneOf(["system", "developer", "user", "assistant"]),
  content: z.unknown().optional(),
  name: text("a name").nullish(),
  // An assistant's message may carry these as null; anything else in them is refused below.
  refusal: z.null("refusals are not supported.").optional(),
  tool_calls: z.null("tool calls are not supported.").optional(),
  function_call: z.null("function calls are not supported.").optional(),
  audio: z.null("audio is not supported.").optional(),
});

const schema = object({
  ...chatSharedFields,
  messages: z
    .array(message, { error: ({ input }) => `expected a list of messages; received ${show(input)}.` })
    .min(1, { error: () => "expected at least one message." }),
});

/** @throws {ApiError} naming the field that is wrong */
export function parseChatRequest(body: unknown): ChatRequest {
  const checked = parseBody(schema, body);
  const { max_tokens, max_completion_tokens, logprobs, top_logprobs } = checked;
  if (typeof max_tokens === "number" && typeof max_completion_tokens === "number") {
    throw badField("max_tokens", "max_tokens and max_completion_tokens name one limit; give one of them.");
  }
  if (typeof top_logprobs === "number" && !logprobs) {
    throw badField("top_logprobs", "top_logprobs: expected only together with logprobs: true.");
  }
  return {
    ...sharedSettings(checked),
    maxTokens: max_completion_tokens ?? max_tokens ?? undefined,
    defaultMaxTokens: Number.POSITIVE_INFINITY,
    topLogProbs: logprobs ? (top_logprobs ?? 0) : undefined,
    messages: checked.messages.map(({ role, content, name }, i) => ({
      role: role === "developer" ? "system" : role,
      content: contentText(`messages[${i}].content`, content),
      ...(typeof name === "string" ? { name } : {}),
    })),
  };
}

/** A text, or texts in parts. */
function contentText(where: string, content: unknown): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) {
    throw badField(where, `${where}: expected a text or a list of text parts; received ${show(content)}.`);
  }
  return content.map((part, i) => partText(`${where}[${i}]`, part)).join("");
}

function partText(where: string, part: unknown): string {
  const { type, text } = isObject(part) ? part : {};
  if (type === "text" && typeof text === "string") return text;
  if (typeof type === "string" && type !== "text") {
    throw badField(`${where}.type`, `${where}: ${show(type)} is not supported; this model reads text alone.`);
  }
  throw badField(where, `${where}: expected { "type": "text", "text": … }; received ${show(part)}.`);
}
