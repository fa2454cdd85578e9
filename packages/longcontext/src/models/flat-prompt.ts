import type { Message } from "../sample.js";

const names = { system: "System", user: "User", assistant: "Assistant" } as const;

/**
 * Messages as one text for a model without a chat template: a lone message as it is (single prompts end where the answer begins), a
 * conversation as `User: …` and `Assistant: …`, with the last word left to the assistant.
 */
export function flatPrompt(messages: readonly Message[]): string {
  const [only, ...others] = messages;
  if (only !== undefined && others.length === 0) return only.content;
  return [...messages.map(({ role, content }) => `${names[role]}: ${content}`), "Assistant:"].join("\n\n");
}
