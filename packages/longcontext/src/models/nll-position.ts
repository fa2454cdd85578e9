/** Likelihood against position (arXiv:2403.05530 §5.2.1.1): does a model read what is far back? */
import { OptionError } from "@llmeff/native/errors";
import { type NllBin, type NllPoint, nllBins, nllCurve } from "../stats/nll-curve.js";
import { fitPowerLaw, type PowerLawFit } from "../stats/power-law.js";
import type { EvalModel } from "./eval-model.js";

export interface NllPositions {
  model: string;
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
 * @param options.positions - where the curve has points; default 128·2^j
 * @throws {OptionError} if the model gives no log-probabilities, as endpoints do not
 */
export async function nllPosition(
  model: EvalModel,
  documents: Iterable<string> | AsyncIterable<string>,
  options: { positions?: readonly number[]; chunk?: number } = {},
): Promise<NllPositions> {
  const { tokenizer } = model;
  if (model.tokenLogProbs === undefined || tokenizer === undefined) {
    throw new OptionError(`[nllPosition] ${model.id} gives no log-probabilities. Use a model of this process.`);
  }
  const { chunk, ...where } = options;
  const losses: Float64Array[] = [];
  for await (const text of documents) {
    const ids = Int32Array.from(tokenizer.encode(text));
    const logProbs = await model.tokenLogProbs(ids, chunk === undefined ? {} : { chunk });
    // The first token has nothing before it.
    losses.push(logProbs.subarray(1).map((value) => -value));
  }
  const points = nllCurve(losses, where);
  const known = points.filter(({ mean }) => mean !== null);
  const fit =
    known.length < 4
      ? null
      : fitPowerLaw(
          known.map(({ position }) => position),
          known.map(({ mean }) => mean!),
        );
  return { model: model.id, points, bins: nllBins(losses), fit };
}
