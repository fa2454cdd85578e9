/** Collections of tokenised documents, and endless sequences of their documents in a shuffled order that resumes. */
import { OptionError } from "@llmeff/native/errors";
import { type JsonObject, readState, restoreAll } from "./batch.js";
import { drawIndex } from "./objectives.js";
import type { Seed } from "./philox.js";
import { Random } from "./random.js";
import { type ShuffledOrder, shuffledOrder } from "./shuffled-order.js";
import { fingerprint } from "./token-dataset.js";

/** Documents by number, in memory or on a disk. */
export interface DocumentSet {
  readonly count: number;
  /** Of all documents together. */
  readonly tokenCount: number;
  /** Tells one set from another, for states. */
  readonly fingerprint: string;
  document(index: number): Int32Array | Promise<Int32Array>;
}

/** A document of a sequence. */
export interface DrawnDocument {
  tokens: Int32Array;
  /** Source, epoch and number: what random choices about the document are keyed by. */
  source: string;
  epoch: number;
  index: number;
}

/** An endless, resumable sequence of documents; `state()` means after the last that was handed out. */
export interface DocumentSource {
  next(): DrawnDocument | Promise<DrawnDocument>;
  state(): JsonObject;
  restore(state: JsonObject): void;
}

/** Documents held in memory. */
export function documentSet(documents: readonly ArrayLike<number>[]): DocumentSet {
  const held = documents.map((document) => Int32Array.from(document));
  return {
    count: held.length,
    tokenCount: held.reduce((sum, { length }) => sum + length, 0),
    fingerprint: fingerprint(
      Int32Array.from(held.flatMap((document) => [document.length, fingerprintNumber(document)])),
    ),
    document: (index) => held[index]!,
  };
}

const fingerprintNumber = (tokens: Int32Array) => Number.parseInt(fingerprint(tokens), 16) | 0;

/** All documents of a set once an epoch, in an order that depends on (seed, epoch) alone. */
export function shuffledDocuments(
  documents: DocumentSet,
  options: { seed?: Seed; name?: string } = {},
): DocumentSource {
  const { seed = 0, name = "documents" } = options;
  if (documents.tokenCount === 0) {
    throw new OptionError(`[shuffledDocuments] the set has ${documents.count} documents and no token.`);
  }
  const identity = {
    kind: "shuffled-documents",
    name,
    seed: String(seed),
    count: documents.count,
    fingerprint: documents.fingerprint,
  };
  let place = 0;
  let epoch = 0;
  let order: ShuffledOrder | undefined;
  return {
    async next() {
      if (place === documents.count) {
        epoch += 1;
        place = 0;
        order = undefined;
      }
      order ??= shuffledOrder(documents.count, seed, `documents/${name}/epoch`, epoch);
      const index = order.at(place);
      const drawn = { tokens: await documents.document(index), source: name, epoch, index };
      place += 1;
      return drawn;
    },
    state: () => ({ ...identity, epoch, place }),
    restore(state) {
      const read = readState("shuffledDocuments.restore", state, identity, ["epoch", "place"]);
      epoch = read.epoch;
      place = Math.min(read.place, documents.count);
      order = undefined;
    },
  };
}

export interface MixtureSource {
  name: string;
  documents: DocumentSet;
  /** Its share of the tokens, relative to the sum over the sources: instead of a temperature, and for all sources or none. */
  weight?: number;
}

export interface MixtureOptions {
  /** T; 1 (default) keeps the sources' sizes, larger ones raise the small sources: at 5 nearly alike, ∞ alike. */
  temperature?: number;
  seed?: Seed;
}

/**
 * Shares of tokens by temperature sampling, `p_i ∝ n_i^(1/T)` with n_i tokens in source i (mT5, arXiv:2010.11934, has the same with α = 1/T).
 *
 * @returns summing to 1
 */
export function temperatureShares(tokenCounts: readonly number[], temperature: number): number[] {
  if (!(temperature > 0)) {
    throw new OptionError(`[temperatureShares] temperature must be above 0; received ${temperature}.`);
  }
  const largest = Math.max(...tokenCounts);
  const wrong = tokenCounts.find((count) => !(count > 0 && Number.isFinite(count)));
  if (wrong !== undefined || tokenCounts.length === 0) {
    throw new OptionError(`[temperatureShares] expected positive numbers of tokens; received ${wrong ?? "none"}.`);
  }
  // Relative to the largest, which becomes 1: a low temperature would overflow otherwise.
  const powers = tokenCounts.map((count) => (count / largest) ** (1 / temperature));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/**
 * Documents of several sources, such as languages, in the shares of a temperature or of weights. The source of draw i depends on (seed, i) alone; each
 * source is shuffled and repeated by itself, so small ones have more epochs.
 *
 * Shares are shares of tokens: sources are drawn in proportion to `p_i / (tokens per document)`.
 */
export function mixDocuments(sources: readonly MixtureSource[], options: MixtureOptions = {}): DocumentSource {
  const { seed = 0 } = options;
  const names = sources.map(({ name }) => name);
  if (new Set(names).size < names.length || names.length === 0) {
    throw new OptionError(`[mixDocuments] sources must have names of their own; received ${JSON.stringify(names)}.`);
  }
  const given = weightsOf(sources, options);
  const temperature = options.temperature ?? 1;
  const tokenCounts = sources.map(({ documents }) => documents.tokenCount);
  const shares = given ?? temperatureShares(tokenCounts, temperature);
  const weights = sources.map(({ documents }, i) => (shares[i]! * documents.count) / tokenCounts[i]!);
  const streams = sources.map(({ name, documents }) => shuffledDocuments(documents, { seed, name }));
  const identity = {
    kind: "mixed-documents",
    seed: String(seed),
    ...(given === undefined ? { temperature: String(temperature) } : { weights: given.join() }),
    sources: names.join(),
  };
  let draws = 0;
  return {
    async next() {
      const drawn = drawIndex(weights, new Random(seed, "documents/mixture", draws).uniform());
      const document = await streams[drawn]!.next();
      draws += 1;
      return document;
    },
    state: () => ({ ...identity, draws, states: streams.map((stream) => stream.state()) }),
    restore(state) {
      const read = readState("mixDocuments.restore", state, identity, ["draws"]);
      restoreAll("mixDocuments.restore", streams, state.states);
      draws = read.draws;
    },
  };
}

function weightsOf(
  sources: readonly MixtureSource[],
  { temperature }: Pick<MixtureOptions, "temperature">,
): number[] | undefined {
  const given = sources.flatMap(({ weight }) => weight ?? []);
  if (given.length === 0) return undefined;
  const wrong = given.find((weight) => !(weight > 0 && Number.isFinite(weight)));
  if (wrong !== undefined || given.length < sources.length || temperature !== undefined) {
    throw new OptionError(
      `[mixDocuments] expected a positive weight for each of ${sources.length} sources and no temperature; received ${given.join(", ")}` +
        `${temperature === undefined ? "" : ` and temperature ${temperature}`}. Give all sources a weight, or none.`,
    );
  }
  return given;
}
