/** Token counts for an endpoint whose tokenizer is not public: a line through what it says it received. */
import { OptionError } from "@llmeff/native/errors";
import { type Tokenizer, utf8Bytes, utf8Length, utf8LengthOfPieces } from "./tokenizer.js";

/** A request of known size, and the `prompt_tokens` that came back. */
export interface UsageProbe {
  bytes: number;
  promptTokens: number;
}

export interface CalibratedTokenizer extends Tokenizer {
  /** Tokens of an empty request: what the endpoint's template adds. Give it as the overhead of a budget. */
  readonly overheadTokens: number;
  readonly tokensPerByte: number;
}

export interface CalibrateOptions {
  /** Multiplies the slope, so that text denser than the probes still fits; default 1.01. */
  safety?: number;
}

/**
 * `tokens = c0 + c1 · bytes` through two probes; `count(text)` is `ceil(safety · c1 · bytes)` and `c0` is the overhead. `encode` gives
 * bytes, since ids are not known.
 *
 * @param id - names the endpoint's tokenizer in samples
 * @throws {OptionError} if the probes have one size, or tokens do not grow with it
 */
export function calibrated(
  id: string,
  small: UsageProbe,
  large: UsageProbe,
  options: CalibrateOptions = {},
): CalibratedTokenizer {
  const { safety = 1.01 } = options;
  const slope = (large.promptTokens - small.promptTokens) / (large.bytes - small.bytes);
  if (!(slope > 0 && Number.isFinite(slope))) {
    throw new OptionError(
      `[calibrated] two probes of different sizes are needed, the larger with more tokens; received ${JSON.stringify([small, large])}.`,
    );
  }
  if (!(safety >= 1)) throw new OptionError(`[calibrated] safety must be at least 1; received ${safety}.`);
  const tokensOf = (bytes: number): number => Math.ceil(safety * slope * bytes);
  return {
    id,
    encode: utf8Bytes.encode,
    count: (text) => tokensOf(utf8Length(text)),
    countPieces: (pieces) => tokensOf(utf8LengthOfPieces(pieces)),
    overheadTokens: Math.max(0, Math.ceil(small.promptTokens - slope * small.bytes)),
    tokensPerByte: slope,
  };
}
