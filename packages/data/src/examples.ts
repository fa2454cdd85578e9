/** A document as training sequences of a mixture of objectives, each no longer than a row. */
import { OptionError } from "@llmeff/native/errors";
import {
  corrupt,
  corruptionCounts,
  type Denoiser,
  decoderOnly,
  drawSpans,
  type Example,
  joined,
  optional,
  type Sentinels,
} from "./denoising.js";
import {
  drawIndex,
  type ObjectiveKind,
  type ObjectivePreset,
  resolveObjectives,
  type TextObjective,
} from "./objectives.js";
import type { Random } from "./random.js";

export interface ExampleOptions {
  /** A preset's name or a list; default `"causal"`. */
  objectives?: ObjectivePreset | readonly TextObjective[];
  /** Needed by R, S and X. */
  sentinels?: Sentinels;
  /** A token put first that tells the kind of the objective; default none. */
  modes?: Partial<Record<ObjectiveKind, number>>;
  /** Begins every sequence; default none. */
  bos?: number;
  /** Ends every document, and the targets of every corrupted piece; default none. */
  eos?: number;
  /** `"prefix"` (default): inputs see each other. `"causal"`: no token sees a later one. */
  attention?: "prefix" | "causal";
  /** Predict inputs too, not only what was hidden; default false. */
  lossOnInputs?: boolean;
  /** With too few sentinels hide as many tokens in fewer spans, and count it in `limited`; default false: an error. */
  limitSpans?: boolean;
}

/** Makes the sequences of documents. */
export class ExampleMaker {
  readonly objectives: readonly TextObjective[];
  readonly #options: ExampleOptions;
  readonly #maxLength: number;
  /** For each objective, how much of a document a sequence of `maxLength` holds. */
  readonly #longest: readonly number[];
  /** Sequences whose spans were fewer than the objective asks for. */
  limited = 0;

  /**
   * @param maxLength - of a sequence, special tokens included
   * @throws {OptionError} for an objective out of its domain, missing sentinels, or a `maxLength` that holds no two tokens of a document
   */
  constructor(maxLength: number, options: ExampleOptions = {}) {
    this.objectives = resolveObjectives(options.objectives ?? "causal");
    this.#options = options;
    this.#maxLength = maxLength;
    this.#longest = this.objectives.map((objective) => this.#longestPiece(objective));
  }

  /** The sequences of one document, in its order; all random choices come from `random`. */
  *examples(document: Int32Array, random: Random): Generator<Example> {
    const weights = this.objectives.map(({ weight }) => weight);
    for (let at = 0; at < document.length; ) {
      const drawn = drawIndex(weights, random.uniform());
      const piece = document.subarray(at, at + this.#longest[drawn]!);
      at += piece.length;
      yield this.#example(this.objectives[drawn]!, piece, at === document.length, random);
    }
  }

  #example(objective: TextObjective, piece: Int32Array, last: boolean, random: Random): Example {
    const { attention = "prefix", lossOnInputs = false } = this.#options;
    const example = this.#sequence(objective, piece, last, lossOnInputs, random);
    return attention === "prefix" ? example : { ...example, prefixLength: 0 };
  }

  #sequence(
    objective: TextObjective,
    piece: Int32Array,
    last: boolean,
    lossOnInputs: boolean,
    random: Random,
  ): Example {
    const { bos, eos, sentinels } = this.#options;
    const mode = this.#options.modes?.[objective.kind];
    // A single token can be neither hidden nor split: it is a causal sequence.
    const plain = objective.kind === "causal" || piece.length < 2;
    if (!plain && objective.kind !== "prefix") {
      const counts = this.#counts(piece.length, objective);
      const { inputs, targets } = corrupt(piece, drawSpans(piece.length, counts, random), {
        ...(sentinels && { sentinels }),
        mode,
        eos,
      });
      return decoderOnly(inputs, targets, { bos, lossOnInputs });
    }
    const text = last ? joined([piece, optional(eos)]) : piece;
    const split = plain ? 0 : random.integer(1, piece.length);
    const example = decoderOnly(joined([optional(mode), text.subarray(0, split)]), text.subarray(split), {
      bos,
      lossOnInputs: lossOnInputs || plain,
    });
    return plain ? { ...example, prefixLength: 0 } : example;
  }

  #counts(length: number, objective: Denoiser): { noise: number; spans: number } {
    const { noise, spans } = corruptionCounts(length, objective);
    const { sentinels, limitSpans = false } = this.#options;
    const most = sentinels!.count - 1;
    if (spans <= most || !limitSpans) return { noise, spans };
    this.limited += 1;
    return { noise, spans: most };
  }

  /** Spans, as many as there are sentinels for if they are to be limited, and the length of the sequence that comes of a piece. */
  #measure(objective: TextObjective, length: number): { spans: number; total: number } {
    const { bos, eos, modes, sentinels, limitSpans = false } = this.#options;
    const fixed = [bos, eos, modes?.[objective.kind]].filter((id) => id !== undefined).length;
    if (objective.kind === "causal" || objective.kind === "prefix") return { spans: 0, total: length + fixed };
    const { spans } = corruptionCounts(length, objective);
    const hidden = limitSpans ? Math.min(spans, sentinels!.count - 1) : spans;
    return { spans: hidden, total: length + fixed + 2 * hidden + 1 };
  }

  #longestPiece(objective: TextObjective): number {
    const denoises = objective.kind !== "causal" && objective.kind !== "prefix";
    const available = this.#options.sentinels?.count ?? 0;
    if (denoises && available < 2) {
      throw new OptionError(
        `[ExampleMaker] ${describe(objective)} needs at least 2 sentinels; received ${available}. Give sentinels: { first, count }.`,
      );
    }
    for (let length = this.#maxLength; length >= 2; length--) {
      const { spans, total } = this.#measure(objective, length);
      if (total > this.#maxLength) continue;
      if (!denoises || spans < available) return length;
      throw new OptionError(
        `[ExampleMaker] ${describe(objective)} hides ${spans} spans of ${length} tokens and needs ${spans + 1} sentinels; there are ${available}. Give more, or set limitSpans.`,
      );
    }
    throw new OptionError(
      `[ExampleMaker] sequences of ${this.#maxLength} tokens don't hold two tokens of a document with the special tokens of ${describe(objective)}. Make them longer.`,
    );
  }
}

function describe(objective: TextObjective): string {
  const { weight: _, ...rest } = objective;
  return JSON.stringify(rest);
}
