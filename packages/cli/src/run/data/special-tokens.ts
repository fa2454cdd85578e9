/** The tokens that objectives need beside a tokenizer's: the end of documents, the denoisers' modes, and sentinels. */
import { type ObjectiveKind, type Sentinels, sentinelsNeeded, type TextObjective, type Tokenizer } from "@llmeff/data";
import type { DataOf } from "../../config/data-schema.js";
import { UsageError } from "../../errors.js";

export interface SpecialTokens {
  /** One more than the largest id. */
  vocabSize: number;
  modes?: Partial<Record<ObjectiveKind, number>>;
  sentinels?: Sentinels;
}

/** The id of a token by its name; by default the first after the tokenizer's. @throws {UsageError} if it has none of the name */
export function endOfDocument(tokenizer: Tokenizer, name: string | undefined, where: string): number {
  return name === undefined ? tokenizer.vocabSize : namedToken(tokenizer, name, where);
}

/**
 * New ids after those that are in use: modes for R, S, X, then as many sentinels as sequences need, the highest first, as T5 counts. None of them where no
 * objective hides spans.
 *
 * @param used - ids below it are taken
 * @param objectives - all that the model is trained on or measured by
 */
export function specialTokens(
  tokenizer: Tokenizer,
  used: number,
  objectives: readonly TextObjective[],
  { modeTokens = true, seqLen }: Pick<DataOf<"documents">, "modeTokens" | "seqLen">,
): SpecialTokens {
  const count = sentinelsNeeded(objectives, seqLen);
  const own = count > 0 && modeTokens === true ? { R: used, S: used + 1, X: used + 2 } : {};
  const named = typeof modeTokens === "object" ? Object.entries(modeTokens) : [];
  const modes = Object.fromEntries([
    ...Object.entries(own),
    ...named.flatMap(([kind, name]) =>
      name === undefined ? [] : [[kind, namedToken(tokenizer, name, `data.modeTokens.${kind}`)] as const],
    ),
  ]);
  const vocabSize = used + Object.keys(own).length + count;
  return { vocabSize, modes, ...(count > 0 && { sentinels: { first: vocabSize - 1, count } }) };
}

function namedToken(tokenizer: Tokenizer, name: string, where: string): number {
  const id = tokenizer.idOf(name);
  if (id !== undefined) return id;
  throw new UsageError(`[llmeff] ${where}: the tokenizer has no token ${JSON.stringify(name)}.`);
}
