/** Likelihood against position (arXiv:2403.05530 §5.2.1.1): does a model read what is far back? */
import { OptionError } from "@llmeff/native/errors";
import { requireInteger } from "../require-integer.js";
import { type NllBin, type NllPoint, nllBins, nllCurve } from "../stats/nll-curve.js";
import { fitPowerLaw, type PowerLawFit } from "../stats/power-law.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import type { EvalModel } from "./eval-model.js";

export interface NllOptions {
  /** Where the curve has points; default 128·2^j. */
  positions?: readonly number[];
  /** Only so many tokens of each document, from its first on; default all. What is longer than the model's context must be cut so. */
  maxTokens?: number;
  /** Tokens of one pass. */
  chunk?: number;
  /** Called after each document. */
  onDocument?: (read: { documents: number; tokens: number }) => void;
  signal?: AbortSignal;
}

export interface NllPositions {
  model: string;
  /** Documents read, and their tokens. */
  documents: number;
  tokens: number;
  /** Mean of the cumulative NLL, with the number of documents that are so long. */
  points: NllPoint[];
  /** Mean NLL within bins of powers of two. */
  bins: NllBin[];
  /** Fit of `α·xᵝ + γ`; null for less than four points. */
  fit: PowerLawFit | null;
}

/**
 * NLL of every token of some documents under all that is before it, in nats.
 *
 * @param documents - texts; each is one sequence, from its first token on
 * @throws {OptionError} if the model gives no log-probabilities, as endpoints do not; for a document longer than the model's context
 */
export async function nllPosition(
  model: EvalModel,
  documents: Iterable<string> | AsyncIterable<string>,
  options: NllOptions = {},
): Promise<NllPositions> {
  const { tokenizer, contextWindow = Number.POSITIVE_INFINITY, documentWindow = contextWindow } = model;
  const { positions, maxTokens, chunk, onDocument, signal } = options;
  if (model.tokenLogProbs === undefined || tokenizer === undefined) {
    throw new OptionError(`[nllPosition] ${model.id} gives no log-probabilities. Use a model of this process.`);
  }
  if (maxTokens !== undefined) requireInteger("nllPosition", "maxTokens", maxTokens, 2);
  const losses: Float64Array[] = [];
  let tokens = 0;
  for await (const text of documents) {
    signal?.throwIfAborted();
    const ids = Int32Array.from(firstTokens(tokenizer, text, maxTokens)).subarray(0, maxTokens);
    if (ids.length > documentWindow) {
      throw new OptionError(
        `[nllPosition] document ${losses.length} has ${ids.length} tokens, and ${model.id} takes ${documentWindow}. Give maxTokens, to read the first ones of each.`,
      );
    }
    const logProbs = await model.tokenLogProbs(ids, chunk === undefined ? {} : { chunk });
    // A first token with nothing before it has no loss.
    losses.push(logProbs.subarray(Number.isNaN(logProbs[0]) ? 1 : 0).map((value) => -value));
    tokens += ids.length;
    onDocument?.({ documents: losses.length, tokens });
  }
  const points = nllCurve(losses, positions === undefined ? {} : { positions });
  const known = points.filter(({ mean }) => mean !== null);
  const fit =
    known.length < 4
      ? null
      : fitPowerLaw(
          known.map(({ position }) => position),
          known.map(({ mean }) => mean!),
        );
  return { model: model.id, documents: losses.length, tokens, points, bins: nllBins(losses), fit };
}

/** So many tokens behind those wanted, that none of these depends on where the text was cut. */
const spareTokens = 64;

/** Tokens of a text, the first `most` at least, without reading much more of it than these take: of a novel they may be a page. */
function firstTokens(tokenizer: Tokenizer, text: string, most = Number.POSITIVE_INFINITY): ArrayLike<number> {
  for (let length = 8 * (most + spareTokens); length < text.length; length *= 2) {
    // Between words, which tokens seldom cross.
    const ids = tokenizer.encode(text.slice(0, Math.max(0, text.lastIndexOf(" ", length))));
    if (ids.length >= most + spareTokens) return ids;
  }
  return tokenizer.encode(text);
}
