/** How an endpoint counts, from what it says it received. */
import { Random } from "@llmeff/data";
import { proseLine } from "../scribe/prose.js";
import { type CalibratedTokenizer, calibrated, type UsageProbe } from "../tokens/calibrated.js";
import { utf8Length } from "../tokens/tokenizer.js";
import { type EvalModel, ModelError } from "./eval-model.js";

/** About 300 and 3,000 tokens: what both cost together is nothing beside one sample. */
const PROBE_BYTES = [1_200, 12_000] as const;

/** Two requests of known size, and what they counted as; `calibratedFrom` makes a tokenizer of them. */
export type Calibration = readonly [small: UsageProbe, large: UsageProbe];

/**
 * Sends two short requests.
 *
 * @throws {ModelError} if the endpoint gives no answer, or tells no usage
 */
export async function calibrate(model: EvalModel, signal?: AbortSignal): Promise<Calibration> {
  const [small, large] = PROBE_BYTES.map(probeText) as [string, string];
  return [await probe(model, small, signal), await probe(model, large, signal)];
}

export function calibratedFrom(modelId: string, [small, large]: Calibration): CalibratedTokenizer {
  const slope = (large.promptTokens - small.promptTokens) / (large.bytes - small.bytes);
  return calibrated(`calibrated:${modelId}:${slope.toPrecision(6)}`, small, large);
}

async function probe(model: EvalModel, text: string, signal: AbortSignal | undefined): Promise<UsageProbe> {
  const messages = [{ role: "user" as const, content: text }];
  const { usage } = await model.generate({ messages, maxTokens: 16, ...(signal === undefined ? {} : { signal }) });
  if (usage === undefined) {
    throw new ModelError(
      "stop",
      `[calibrate] ${model.id} tells no token usage, so lengths can't be counted as it does. Name a tokenizer, such as a tokenizer.json.`,
    );
  }
  return { bytes: utf8Length(text), promptTokens: usage.promptTokens };
}

function probeText(bytes: number): string {
  const random = new Random(0, "longcontext/calibrate", bytes);
  let text = "Reply with the word yes.";
  while (text.length < bytes) text += `\n${proseLine(random)}`;
  return text;
}
