/**
 * How often passages of a training text occur in it, for memorisation by repetition: extraction from bins of equally often repeated passages of 100 tokens
 * (PaLM 2 report, arXiv:2305.10403, §4.6; models.md §12).
 */
import { OptionError } from "@llmeff/native/errors";
import { requireInteger } from "./batch.js";
import { NgramIndex, requireDocument } from "./ngram-index.js";
import type { Seed } from "./philox.js";
import { Random } from "./random.js";

export interface Passage {
  tokens: Int32Array;
  /** Number of its document among those given. */
  document: number;
  /** Place in the document. */
  start: number;
}

/**
 * Passages drawn uniformly from all places of some documents, in their order there: of a passage that occurs more often, as many more places may be drawn.
 *
 * One pass with memory for the passages alone (reservoir by gaps: K.-H. Li, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))", ACM TOMS 20,
 * 1994); which, (seed, number of documents) decides.
 *
 * @param count - at most so many
 * @param options.length - tokens of a passage; default 100
 */
export async function drawPassages(
  documents: Iterable<ArrayLike<number>> | AsyncIterable<ArrayLike<number>>,
  count: number,
  options: { length?: number; seed?: Seed } = {},
): Promise<Passage[]> {
  const { length = 100, seed = 0 } = options;
  requireInteger("drawPassages", "count", count, 1);
  requireInteger("drawPassages", "length", length, 1);
  const random = new Random(seed, "passages");
  const uniform = () => 1 - random.uniform(); // in (0, 1]
  const held: Passage[] = [];
  /** Share of the places that still enter, and the place, of all, that does next. */
  let share = uniform() ** (1 / count);
  let next = 0;
  let before = 0;
  let document = 0;
  for await (const tokens of documents) {
    requireDocument("drawPassages", tokens);
    const places = Math.max(0, tokens.length - length + 1);
    while (next < before + places) {
      const start = next - before;
      const passage = { tokens: Int32Array.from({ length }, (_, i) => tokens[start + i]!), document, start };
      if (held.length < count) held.push(passage);
      else held[random.integer(0, count)] = passage;
      next += 1;
      if (held.length < count) continue;
      const gap = Math.log(uniform()) / Math.log1p(-share);
      next += Number.isFinite(gap) ? Math.floor(gap) : Number.MAX_SAFE_INTEGER;
      share *= uniform() ** (1 / count);
    }
    before += places;
    document += 1;
  }
  return held.sort((a, b) => a.document - b.document || a.start - b.start);
}

/**
 * Counts the places of a text at which each of some passages begins. It sees the text's documents one after the other and keeps none.
 *
 * @example
 * const passages = await drawPassages(documents(), 50_000, { seed: 1 });
 * const counter = new RepetitionCounter(passages.map(({ tokens }) => tokens));
 * for await (const document of documents()) counter.add(document);
 * const bins = repetitionBins(counter.counts());
 */
export class RepetitionCounter {
  readonly #index: NgramIndex;
  /** The run of each passage: equal passages have one. */
  readonly #runs: Int32Array;
  readonly #counts: Float64Array;

  /** @throws {OptionError} if there are none, or they have different lengths */
  constructor(passages: readonly ArrayLike<number>[]) {
    const length = passages[0]?.length ?? 0;
    if (length === 0) throw new OptionError("[RepetitionCounter] expected passages of tokens; received none.");
    this.#index = new NgramIndex("RepetitionCounter", length);
    this.#runs = Int32Array.from(passages, (passage, i) => {
      if (passage.length === length) return this.#index.add(passage)[0]!;
      throw new OptionError(
        `[RepetitionCounter] passages must have one length; passage ${i} has ${passage.length} tokens, the first ${length}.`,
      );
    });
    this.#counts = new Float64Array(this.#index.count);
  }

  add(document: ArrayLike<number>): void {
    requireDocument("RepetitionCounter.add", document);
    this.#index.search(document, (run) => {
      this.#counts[run]! += 1;
    });
  }

  /** Of each passage, in all documents so far. */
  counts(): Float64Array {
    return Float64Array.from(this.#runs, (run) => this.#counts[run]!);
  }
}

/** Passages that occur about equally often. */
export interface RepetitionBin {
  /** Occurrences: from, and less than. */
  from: number;
  to: number;
  /** Numbers of passages, in their order. */
  members: number[];
}

export interface RepetitionBinOptions {
  /** Ascending borders of the bins; default 1, 2, 3, 5, 9, 17, … doubling: once, twice, 3–4, 5–8, …. The last bin has no end. */
  borders?: readonly number[];
  /** Most passages of a bin, drawn from its own; default 10,000, as PaLM 2 has. */
  most?: number;
  /** What each passage belongs to, such as its language: bins are made of each group alone, and `most` is 2,000 by default. */
  groups?: ArrayLike<string>;
  seed?: Seed;
}

/**
 * Bins of passages by how often they occur; those that never do are in none, and empty bins are left out.
 *
 * @returns the bins by group, under `""` without groups
 * @throws {OptionError} for borders that don't ascend
 */
export function repetitionBins(
  counts: ArrayLike<number>,
  options: RepetitionBinOptions = {},
): Record<string, RepetitionBin[]> {
  const { groups, most = groups === undefined ? 10_000 : 2000, seed = 0 } = options;
  requireInteger("repetitionBins", "most", most, 1);
  const values = Array.from(counts);
  const borders = options.borders ?? doubling(values.reduce((a, b) => Math.max(a, b), 1));
  const wrong = borders.findIndex((border, i) => !(border > (borders[i - 1] ?? 0)));
  if (borders.length === 0 || wrong >= 0) {
    throw new OptionError(`[repetitionBins] borders must ascend from above 0; received ${JSON.stringify(borders)}.`);
  }
  const names = [...new Set(groups === undefined ? [""] : Array.from(groups))];
  return Object.fromEntries(
    names.map((name) => {
      const own = [...values.keys()].filter((i) => groups === undefined || groups[i] === name);
      const bins = borders.map((from, i): RepetitionBin => {
        const to = borders[i + 1] ?? Number.POSITIVE_INFINITY;
        const members = own.filter((number) => values[number]! >= from && values[number]! < to);
        return { from, to, members: drawn(members, most, new Random(seed, `repetition/${name}`, from)) };
      });
      return [name, bins.filter(({ members }) => members.length > 0)] as const;
    }),
  );
}

function doubling(highest: number): number[] {
  const borders = [1];
  for (let below = 1; 1 + below <= highest; below *= 2) borders.push(1 + below);
  return borders;
}

function drawn(members: number[], most: number, random: Random): number[] {
  if (members.length <= most) return members;
  return Array.from(random.shuffle(Int32Array.from(members)).subarray(0, most)).sort((a, b) => a - b);
}
