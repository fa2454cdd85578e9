/** Several questions on one long prompt: it stays the same for all of them, so that a prefix cache serves the second. */
import type { Sample, SampleMeta } from "../sample.js";
import { countPrompt } from "../tokens/budget.js";
import { type Tokenizer, utf8Bytes } from "../tokens/tokenizer.js";
import type { SampleOptions } from "./sample-options.js";

/** The question with which the shared prompt is fitted to the budget. */
export function longestOf(questions: readonly string[], tokenizer: Tokenizer): string {
  const counted = questions.map((text) => ({ text, tokens: tokenizer.count(text) }));
  return counted.reduce((a, b) => (b.tokens > a.tokens ? b : a)).text;
}

/** The sample with `question` in place of `fitted`, with which its last message ends. */
export function withQuestion<Target extends string | string[], Meta extends SampleMeta>(
  sample: Sample<Target, Meta>,
  fitted: string,
  question: string,
  { tokenizer = utf8Bytes, overhead }: SampleOptions,
): Sample<Target, Meta> {
  const { budget, meta } = sample;
  const last = sample.messages.at(-1)!;
  const content = last.content.slice(0, last.content.length - fitted.length) + question;
  const messages = [...sample.messages.slice(0, -1), { ...last, content }];
  const promptTokens = countPrompt(messages, tokenizer, overhead);
  return {
    ...sample,
    messages,
    budget: { ...budget, promptTokens },
    meta: {
      ...meta,
      // What a shorter question leaves free counts as a part of the unit that did not fit.
      maxUnitTokens: meta.maxUnitTokens + Math.max(0, budget.promptTokens - promptTokens),
      fill: promptTokens / (budget.maxTokens - budget.reserve),
    },
  };
}
