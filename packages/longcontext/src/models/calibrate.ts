/** How an endpoint counts, from what it says it received. */
import { Random } from "@llmeff/data";
import { systemClock } from "../runner/clock.js";
import { AttemptsError, withRetries } from "../runner/retry.js";
import type { Message } from "../sample.js";
import { proseLine } from "../scribe/prose.js";
import type { Overhead } from "../tokens/budget.js";
import { type CalibratedTokenizer, calibrated, type UsageProbe } from "../tokens/calibrated.js";
import { utf8Length } from "../tokens/tokenizer.js";
import { type EvalModel, ModelError } from "./eval-model.js";

/** About 300 and 3,000 tokens: what all probes cost together is nothing beside one sample. */
const SMALL_BYTES = 1_200;
const LARGE_BYTES = 12_000;
/** Messages that the third probe has more than the first. */
const FURTHER_MESSAGES = 20;

/** What an endpoint counts for requests of known size. */
export interface Calibration {
  small: UsageProbe;
  large: UsageProbe;
  /** Tokens that a template adds for each further message. */
  perMessage: number;
}

/**
 * Sends three short requests: two that differ in length, and one that differs in the number of messages.
 *
 * @throws {ModelError} if the endpoint gives no answer, or tells no usage
 */
export async function calibrate(model: EvalModel, signal?: AbortSignal): Promise<Calibration> {
  const text = probeText(SMALL_BYTES);
  const small = await probe(model, [text], signal);
  const large = await probe(model, [probeText(LARGE_BYTES)], signal);
  // The same bytes in many messages. Cut between words: a cut inside one would add tokens of its own.
  const split = await probe(model, pieces(text, FURTHER_MESSAGES + 1), signal);
  const perMessage = Math.max(0, (split.promptTokens - small.promptTokens) / FURTHER_MESSAGES);
  return { small, large, perMessage };
}

/** The tokenizer, and what is added around the contents of messages. */
export function calibratedTokens(
  modelId: string,
  { small, large, perMessage }: Calibration,
): { tokenizer: CalibratedTokenizer; overhead: Overhead } {
  const slope = (large.promptTokens - small.promptTokens) / (large.bytes - small.bytes);
  const tokenizer = calibrated(`calibrated:${modelId}:${slope.toPrecision(6)}`, small, large);
  return {
    tokenizer,
    overhead: (messages) => tokenizer.overheadTokens + Math.ceil(perMessage * (messages.length - 1)),
  };
}

async function probe(model: EvalModel, texts: readonly string[], signal: AbortSignal | undefined): Promise<UsageProbe> {
  const messages = texts.map((content, i): Message => ({ role: i % 2 === 0 ? "user" : "assistant", content }));
  const request = { messages, maxTokens: 16, ...(signal === undefined ? {} : { signal }) };
  const { value } = await withRetries(
    () => model.generate(request),
    {},
    systemClock,
    () => {},
    signal,
  ).catch((error) => {
    throw error instanceof AttemptsError ? error.failure : error;
  });
  const { usage } = value;
  if (usage === undefined) {
    throw new ModelError(
      "stop",
      `[calibrate] ${model.id} tells no token usage, so lengths can't be counted as it does. Name a tokenizer, such as a tokenizer.json.`,
    );
  }
  return { bytes: texts.reduce((sum, text) => sum + utf8Length(text), 0), promptTokens: usage.promptTokens };
}

function probeText(bytes: number): string {
  const random = new Random(0, "longcontext/calibrate", bytes);
  let text = "Reply with the word yes.";
  while (text.length < bytes) text += `\n${proseLine(random)}`;
  return text;
}

/** The words of a text in `count` parts of about equal length, none of them empty. */
function pieces(text: string, count: number): string[] {
  const words = text.split(/(?<=\s)/);
  const each = words.length / count;
  return Array.from({ length: count }, (_, i) =>
    words.slice(Math.floor(i * each), Math.floor((i + 1) * each)).join(""),
  );
}
