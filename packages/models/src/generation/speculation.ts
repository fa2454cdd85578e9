/** Speculative decoding: a small model drafts tokens, and the model itself checks all of them in one pass (Leviathan et al. 2023, arXiv:2211.17192). */
import { OptionError } from "@llmeff/tensor";
import { KvCache } from "../cache.js";
import type { ResolvedConfig } from "../config.js";
import type { ForwardOptions } from "../forward-options.js";
import type { Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import { checkInteger, type Request } from "./options.js";
import { drawToken } from "./sampling.js";
import { Scorer } from "./scorer.js";
import type { Sequence } from "./sequence.js";

/** A small model of the same vocabulary. */
export interface DraftModel extends Pick<ForwardOptions, "state"> {
  model: Transformer;
  params: Parameters;
  /** Tokens that it drafts at a time; default 4. */
  tokens?: number;
}

/** How often a draft was right: of all tokens that were drafted, the share that was kept. */
export interface DraftCounts {
  drafted: number;
  accepted: number;
}

/**
 * Checks one drafted token (Algorithm 1): it is kept with probability `min(1, p/q)`; else another is drawn, from `max(p − q, 0)` normalised. The
 * result has the distribution `p`, whatever `q` is.
 *
 * @param p - probabilities by the model
 * @param q - probabilities by which `id` was drafted
 * @param keep - uniform in [0, 1), for whether it is kept
 * @param draw - uniform in [0, 1), for what comes in its place
 */
export function checkDrafted(p: Float64Array, q: Float64Array, id: number, keep: number, draw: number): number {
  if (keep * q[id]! < p[id]!) return id;
  const rest = p.map((probability, other) => Math.max(0, probability - q[other]!));
  const total = rest.reduce((sum, x) => sum + x, 0);
  // Nothing is left only by rounding: then p and q are the same.
  return drawToken(total > 0 ? rest.map((x) => x / total) : p, draw);
}

/** The small model at work on the sequences of a batch. */
export class Drafter {
  readonly counts: DraftCounts = { drafted: 0, accepted: 0 };
  readonly #scorer: Scorer;
  readonly #config: ResolvedConfig;

  /** Tokens that are drafted at a time. */
  readonly tokens: number;

  /** @param target - the configuration of the model that checks */
  constructor({ model, params, tokens = 4, ...state }: DraftModel, target: ResolvedConfig, captureStep?: boolean) {
    checkInteger("draft.tokens", tokens, 1);
    if (target.ropeScaling?.type === "dynamic") {
      throw new OptionError(
        "[generate] a draft can't be checked by a model with dynamic rotary scaling: its frequencies would be those of the draft's length. Leave the draft model out.",
      );
    }
    this.tokens = tokens;
    this.#scorer = new Scorer(model, params, { ...state, captureStep });
    this.#config = model.config;
  }

  /** @throws {OptionError} if the small model doesn't know all tokens that may be drawn */
  check({ vocabSize }: Request): void {
    if (this.#config.vocabSize < vocabSize) {
      throw new OptionError(
        `[generate] the draft model has ${this.#config.vocabSize} tokens and ${vocabSize} may be drawn. Both models must have the same tokenizer; give its size as vocabSize if that of the model is padded.`,
      );
    }
  }

  /** A cache of the small model for one sequence. */
  cache(expected: number): KvCache {
    return new KvCache(this.#config, { expected, rollback: this.tokens });
  }

  /** Gives up what was captured about a sequence, before its cache goes. */
  forget(cache: KvCache): void {
    this.#scorer.forget(cache);
  }

  /**
   * Tokens that can be drafted for a sequence: none beyond the positions of the small model, and none before the first token, lest the text depend on
   * the parts in which its prompt is read.
   */
  most(sequence: Sequence): number {
    if (sequence.left === sequence.request.count) return 0;
    return Math.max(0, Math.min(this.tokens, sequence.left - 1, this.#config.maxSeqLen - sequence.length + 1));
  }

  /** Reads the prompts of some sequences along with the model, as far as it reads them. */
  async read(parts: readonly { sequence: Sequence; end: number }[]): Promise<void> {
    const fitting = parts.filter(({ sequence, end }) => !sequence.ended && end <= this.#config.maxSeqLen);
    if (fitting.length === 0) return;
    await this.#scorer.score(fitting.map(({ sequence, end }) => sequence.draftInput(end, 0)));
  }

  /** Drafts so many tokens for each sequence, one after another. */
  async draft(parts: readonly { sequence: Sequence; drafts: number }[]): Promise<void> {
    for (let i = 0; i < this.tokens; i++) {
      const going = parts.filter(({ sequence, drafts }) => drafts > i && !sequence.ended);
      if (going.length === 0) return;
      const inputs = going.map(({ sequence }) => sequence.draftInput(sequence.length + i, 1));
      const scores = await this.#scorer.score(inputs);
      for (const [j, { sequence }] of going.entries()) sequence.propose(scores[j]!.next[0]!);
    }
  }
}
