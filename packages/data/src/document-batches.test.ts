import { FormatError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Batch, IGNORE_INDEX } from "./batch.js";
import { DocumentBatches, type DocumentBatchesOptions } from "./document-batches.js";
import { documentSet, mixDocuments, shuffledDocuments, temperatureShares } from "./documents.js";
import { objectivePresets } from "./objectives.js";
import { Random } from "./random.js";

const sentinels = { first: 999, count: 60 };
const modes = { R: 900, S: 901, X: 902 };

function corpus(count = 12, seed = 1) {
  const random = new Random(seed, "test/corpus");
  return documentSet(
    Array.from({ length: count }, (_, d) => Array.from({ length: random.integer(1, 90) }, (_, i) => 10 * d + (i % 10))),
  );
}

function open(options: Partial<DocumentBatchesOptions> = {}, documents = corpus()) {
  const source = shuffledDocuments(documents, { seed: 2 });
  return new DocumentBatches(source, { seqLen: 48, batchSize: 3, seed: 4, ...options });
}

/** Whether batches are the same from any state on. */
function resumesAnywhere(make: () => DocumentBatches): Promise<void> {
  return fc.assert(
    fc.asyncProperty(fc.nat(12), async (steps) => {
      const first = make();
      for (let i = 0; i < steps; i++) await first.next();
      const second = make();
      second.restore(JSON.parse(JSON.stringify(first.state())));
      expect(second.state()).toEqual(first.state());
      for (let i = 0; i < 4; i++) expect(await second.next()).toEqual(await first.next());
      expect(second.state()).toEqual(first.state());
    }),
    { numRuns: 8 },
  );
}

/** The sequences of a batch's rows. */
function sequences({ tokens, targets, batchSize, seqLen, extras }: Batch) {
  const [documents, positions, prefix] = ["documents", "positions", "prefix"].map((name) => extras![name]!.data);
  return Array.from({ length: batchSize }, (_, row) => {
    const places = Array.from({ length: seqLen }, (_, t) => row * seqLen + t);
    const numbers = [...new Set(places.map((at) => documents![at]!))].filter((number) => number >= 0);
    return numbers.map((number) => {
      const own = places.filter((at) => documents![at] === number);
      expect(own.map((at) => positions![at])).toEqual([...own.keys()]);
      return {
        tokens: own.map((at) => tokens[at]!),
        targets: own.map((at) => targets[at]!),
        prefix: new Set(own.map((at) => prefix![at]!)),
      };
    });
  }).flat();
}

describe("documentSet", () => {
  it("holds very many documents, and tells sets apart", () => {
    const lines = (last: number) => documentSet(Array.from({ length: 100_000 }, (_, i) => [i === 99_999 ? last : i]));
    const set = lines(1);
    expect([set.count, set.tokenCount]).toEqual([100_000, 100_000]);
    expect(set.fingerprint).toBe(lines(1).fingerprint);
    expect(set.fingerprint).not.toBe(lines(2).fingerprint);
  });
});

describe("shuffledDocuments", () => {
  it("refuses a set in which no document has a token, of which rows would never be full", () => {
    expect(() => shuffledDocuments(documentSet([[], []]))).toThrow("the set has 2 documents and no token");
  });
});

describe("DocumentBatches", () => {
  it("hands out the documents of causal rows whole and in the order of the source", async () => {
    const documents = corpus();
    const data = open({ seqLen: 100 }, documents);
    const order = shuffledDocuments(documents, { seed: 2 });
    const seen = [...sequences(await data.next()), ...sequences(await data.next())];
    expect(seen.length).toBeGreaterThan(6);
    for (const sequence of seen) {
      const { tokens } = await order.next();
      expect(sequence.tokens).toEqual([...tokens]);
      expect(sequence.targets).toEqual([...tokens.subarray(1), IGNORE_INDEX]);
      expect([...sequence.prefix]).toEqual([0]);
    }
  });

  it("cuts longer documents, the pieces joining to the whole, with the end token on the last", async () => {
    const document = Array.from({ length: 100 }, (_, i) => i);
    const data = open({ seqLen: 32, batchSize: 4, bos: 201, eos: 202 }, documentSet([document]));
    const pieces = sequences(await data.next()).map(({ tokens }) => tokens);
    expect(pieces.flatMap((piece) => piece.filter((id) => id < 200))).toEqual(document);
    expect(pieces.map((piece) => [piece[0], piece.at(-1)])).toEqual([
      [201, 29],
      [201, 59],
      [201, 89],
      [201, 202],
    ]);
  });

  it("makes rows of long contexts", async () => {
    const document = Int32Array.from({ length: 200_000 }, (_, i) => i % 50);
    const options = { seqLen: 200_001, batchSize: 1, eos: 50 };
    const [row] = sequences(await open(options, documentSet([document])).next());
    expect(row!.tokens).toEqual([...document, 50]);
  });

  it.each(Object.keys(objectivePresets) as (keyof typeof objectivePresets)[])(
    "resumes %s rows from any state with the same batches",
    (objectives) => resumesAnywhere(() => open({ objectives, sentinels, modes, bos: 1, eos: 2 })),
  );

  describe("with the best fit of sequences read ahead", () => {
    const bestFit = { packing: "bestFit", lookAhead: 8 } as const;
    const keyOf = ({ tokens }: { tokens: readonly number[] }) => tokens.join();

    it("hands out every sequence once, none much later than in order", async () => {
      const [ahead, inOrder] = [open({ ...bestFit, seqLen: 100 }), open({ seqLen: 100 })];
      const ordered: string[] = [];
      while (ordered.length < 90) ordered.push(...sequences(await inOrder.next()).map(keyOf));
      const rows: string[][] = [];
      while (rows.flat().length < 40) {
        const { tokens, targets, extras, seqLen, batchSize } = await ahead.next();
        for (let row = 0; row < batchSize; row++) {
          const own = (x: Int32Array) => x.subarray(row * seqLen, (row + 1) * seqLen);
          const shape = [1, seqLen];
          const parts = Object.entries(extras!).map(([name, { data }]) => [
            name,
            { data: own(data as Int32Array), shape },
          ]);
          const single = { tokens: own(tokens), targets: own(targets), batchSize: 1, seqLen };
          rows.push(sequences({ ...single, extras: Object.fromEntries(parts) }).map(keyOf));
        }
      }
      const taken: string[] = [];
      for (const row of rows) {
        const oldest = ordered.find((key, i) => count(taken, key) < count(ordered.slice(0, i + 1), key));
        expect(row[0], "the first of a row has waited longest").toBe(oldest);
        taken.push(...row);
      }
      // Of the order nothing is missing but what still waits.
      const last = Math.max(...taken.map((key) => ordered.indexOf(key)));
      const missing = ordered.slice(0, last + 1).filter((key) => !taken.includes(key));
      expect(missing.length).toBeLessThan(bestFit.lookAhead);
      for (const key of new Set(taken)) expect(count(taken, key)).toBeLessThanOrEqual(count(ordered, key));
    });

    const count = (keys: readonly string[], key: string) => keys.filter((one) => one === key).length;

    it.each(["causal", "ul2"] as const)("resumes %s rows from any state with the same batches", (objectives) =>
      resumesAnywhere(() => open({ ...bestFit, objectives, sentinels, modes, bos: 1, eos: 2 })),
    );

    it("resumes mixtures, whose sources are at different places", async () => {
      const make = () => {
        const sources = [1, 2, 3].map((seed) => ({ name: `s${seed}`, documents: corpus(5 * seed, seed) }));
        const options = { seqLen: 64, batchSize: 2, objectives: "palm2-like", sentinels, ...bestFit } as const;
        return new DocumentBatches(mixDocuments(sources, { temperature: 3, seed: 1 }), options);
      };
      const first = make();
      for (let i = 0; i < 9; i++) await first.next();
      const second = make();
      second.restore(first.state());
      for (let i = 0; i < 9; i++) expect(await second.next()).toEqual(await first.next());
    });

    it("leaves a small part of the padding that the order of the documents leaves", async () => {
      const random = new Random(3, "test/lengths");
      const lengths = Array.from({ length: 600 }, () => random.integer(1, 1100));
      const documents = documentSet(lengths.map((length) => new Int32Array(length).fill(5)));
      const waste = async (options: Partial<DocumentBatchesOptions>) => {
        const data = open(
          { seqLen: 1280, batchSize: 8, objectives: "ul2", sentinels: { first: 999, count: 250 }, ...options },
          documents,
        );
        for (let i = 0; i < 20; i++) await data.next();
        return data.paddingWaste;
      };
      const greedy = await waste({});
      expect(greedy).toBeGreaterThan(0.2);
      expect(await waste({ packing: "bestFit" })).toBeLessThan(0.02);
      expect(await waste({ packing: "bestFit", lookAhead: 16 })).toBeLessThan(greedy / 3);
      expect(await waste({ packing: "bestFit", lookAhead: 1 })).toBe(greedy);
    });

    it("refuses what it can't use, and damaged states, staying where it was", async () => {
      expect(() => open({ packing: "first" as never })).toThrow('packing must be greedy or bestFit; received "first"');
      expect(() => open({ lookAhead: 4 })).toThrow('lookAhead is for packing: "bestFit"');
      expect(() => open({ packing: "bestFit", lookAhead: 0 })).toThrow("lookAhead must be an integer of at least 1");
      const data = open(bestFit);
      await data.next();
      const state = data.state();
      expect(() => open({ ...bestFit, lookAhead: 9 }).restore(state)).toThrow(FormatError);
      for (const damage of [
        { waiting: [1, 2] },
        { waiting: [0, 2, 2] },
        { waiting: "none" },
        { waiting: Array.from({ length: 9 }, (_, i) => i), read: 20 },
        { read: -1 },
        { read: 1 },
        { read: "all" },
      ])
        expect(() => data.restore({ ...state, ...damage }), JSON.stringify(damage)).toThrow(FormatError);
      expect(data.state()).toEqual(state);
    });
  });

  it("mixes objectives in their shares, each with its mode", async () => {
    const data = open({ objectives: "ul2", sentinels, modes, seqLen: 120, batchSize: 40 });
    const counts: Record<number, number> = { 900: 0, 901: 0, 902: 0 };
    let total = 0;
    for (let i = 0; i < 12; i++) {
      for (const { tokens, targets, prefix } of sequences(await data.next())) {
        if (tokens.length < 12) continue; // single tokens are causal
        total += 1;
        counts[tokens[0]!]! += 1;
        const inputs = [...prefix][0]!;
        expect(tokens[inputs]).toBe(sentinels.first);
        expect(targets.slice(0, inputs - 1).every((id) => id === IGNORE_INDEX)).toBe(true);
        expect(targets.slice(inputs - 1, -1)).toEqual(tokens.slice(inputs));
      }
    }
    expect(total).toBeGreaterThan(500);
    for (const [mode, share] of [
      [900, 0.33],
      [901, 0.34],
      [902, 0.33],
    ] as const) {
      expect(Math.abs(counts[mode]! / total - share)).toBeLessThan(4 * Math.sqrt((share * (1 - share)) / total));
    }
  });

  it("hides as much in fewer spans when told to, and counts it", async () => {
    const options = { objectives: [objectivePresets.ul2[3]!], seqLen: 48, sentinels: { first: 999, count: 4 } };
    expect(() => open(options)).toThrow(/hides \d+ spans of \d+ tokens and needs \d+ sentinels; there are 4/);
    const data = open({ ...options, limitSpans: true });
    const lengths = sequences(await data.next()).map(({ tokens }) => tokens.filter((id) => id > 995).length);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(2 * 3 + 1);
    expect(data.limited).toBeGreaterThan(0);
  });

  it("can leave the inputs causal, and predict them too", async () => {
    const data = open({ objectives: "ul2", sentinels, attention: "causal", lossOnInputs: true });
    for (const { tokens, targets, prefix } of sequences(await data.next())) {
      expect([...prefix]).toEqual([0]);
      expect(targets).toEqual([...tokens.slice(1), IGNORE_INDEX]);
    }
  });

  it("tells what padding costs", async () => {
    const data = open();
    expect(data.paddingWaste).toBe(0);
    const { extras } = await data.next();
    const padded = extras!.documents!.data.filter((number) => number < 0).length;
    expect(data.paddingWaste).toBeCloseTo(padded / 144, 12);
  });

  it("refuses objectives without sentinels, rows too short for them, and states of other options", () => {
    expect(() => open({ objectives: "ul2" })).toThrow("needs at least 2 sentinels; received 0");
    expect(() => open({ objectives: "ul2", sentinels, seqLen: 4 })).toThrow(
      "don't hold two tokens of a document with the special tokens",
    );
    expect(() => open({ objectives: "span" as never })).toThrow("expected one of causal, ul2, ul2r, palm2-like");
    expect(() => open({ objectives: [{ kind: "R", meanSpan: 0.5, corruption: 0.15, weight: 1 }] })).toThrow(
      "[objectives] objectives[0].meanSpan must be at least 1; received 0.5.",
    );
    const state = open({ bos: 1 }).state();
    expect(() => open({ bos: 2 }).restore(state)).toThrow(FormatError);
    expect(() => open({ bos: 1 }, corpus(11)).restore(state)).toThrow(FormatError);
  });
});

describe("temperatureShares", () => {
  it("keeps sizes at 1 and evens them out above", () => {
    // Sizes 1 and 16: at temperature 2 the shares are as 1 to 4, at 4 as 1 to 2.
    expect(temperatureShares([1, 16], 1)).toEqual([1 / 17, 16 / 17]);
    expect(temperatureShares([1, 16], 2)).toEqual([1 / 5, 4 / 5]);
    expect(temperatureShares([1, 16], 4)[0]).toBeCloseTo(1 / 3, 12);
    expect(temperatureShares([1, 16], Number.POSITIVE_INFINITY)).toEqual([1 / 2, 1 / 2]);
  });

  it.each([[[1, 0], 1] as const, [[], 1] as const, [[1], 0] as const, [[1], Number.NaN] as const])(
    "refuses sizes %j at %d",
    (sizes, temperature) => {
      expect(() => temperatureShares(sizes, temperature)).toThrow("[temperatureShares]");
    },
  );
});

describe("mixDocuments", () => {
  const sources = [
    { name: "large", documents: documentSet(Array.from({ length: 90 }, (_, i) => new Array(40).fill(i))) },
    { name: "small", documents: documentSet(Array.from({ length: 30 }, (_, i) => new Array(8).fill(i))) },
  ];

  it("has the shares of tokens that the temperature asks for", async () => {
    const mixed = mixDocuments(sources, { temperature: 3, seed: 5 });
    const tokens: Record<string, number> = { large: 0, small: 0 };
    let draws = 0;
    for (; draws < 4000; draws++) {
      const { source, tokens: ids } = await mixed.next();
      tokens[source]! += ids.length;
    }
    const [, expected] = temperatureShares([3600, 240], 3);
    const share = tokens.small! / (tokens.small! + tokens.large!);
    // Documents are drawn with probability q; the share of tokens is a smooth function of it with a slope below 2.
    expect(Math.abs(share - expected!)).toBeLessThan(4 * 2 * Math.sqrt(0.25 / draws));
  });

  it("has every document of a source once an epoch", async () => {
    const mixed = mixDocuments(sources, { temperature: 3, seed: 5 });
    const seen: number[] = [];
    while (seen.length < 30) {
      const { source, index, epoch } = await mixed.next();
      if (source === "small") {
        expect(epoch).toBe(0);
        seen.push(index);
      }
    }
    expect(seen.toSorted((a, b) => a - b)).toEqual([...Array(30).keys()]);
  });

  it("resumes, and restores nothing if one source refuses", async () => {
    const first = mixDocuments(sources, { seed: 5 });
    for (let i = 0; i < 100; i++) await first.next();
    const state = first.state();
    const second = mixDocuments(sources, { seed: 5 });
    second.restore(JSON.parse(JSON.stringify(state)));
    for (let i = 0; i < 50; i++) expect(await second.next()).toEqual(await first.next());
    const before = second.state();
    const damaged = { ...state, states: [(state.states as object[])[0]!, { kind: "other" }] };
    expect(() => second.restore(damaged as never)).toThrow(FormatError);
    expect(second.state()).toEqual(before);
  });

  it("has the shares of tokens that weights ask for, whatever the sizes", async () => {
    const weighed = sources.map((source, i) => ({ ...source, weight: [1, 3][i]! }));
    const mixed = mixDocuments(weighed, { seed: 5 });
    const tokens: Record<string, number> = { large: 0, small: 0 };
    // A document of the small source has 8 tokens, of the large one 40: of 16 draws 15 are of the small one.
    const draws = 6000;
    for (let i = 0; i < draws; i++) {
      const { source, tokens: ids } = await mixed.next();
      tokens[source]! += ids.length;
    }
    // The share 8q / (8q + 40(1 − q)) has the slope 3.2 at q = 15/16, where q deviates by √(15/16 · 1/16 / draws).
    const share = tokens.small! / (tokens.small! + tokens.large!);
    expect(Math.abs(share - 0.75)).toBeLessThan(4 * 3.2 * Math.sqrt(15 / 256 / draws));
    expect(() => mixDocuments(sources, { seed: 5 }).restore(mixed.state())).toThrow(FormatError);
    const again = mixDocuments(weighed, { seed: 5 });
    again.restore(mixed.state());
    expect(await again.next()).toEqual(await mixed.next());
  });

  it("refuses weights of some sources, weights that are none, and weights beside a temperature", () => {
    const [large, small] = sources as [(typeof sources)[0], (typeof sources)[0]];
    expect(() => mixDocuments([{ ...large, weight: 1 }, small])).toThrow("a positive weight for each of 2 sources");
    expect(() => mixDocuments([{ ...large, weight: 0 }])).toThrow("received 0. Give all");
    expect(() => mixDocuments([{ ...large, weight: 2 }], { temperature: 2 })).toThrow("and temperature 2");
  });

  it("refuses two sources of one name", () => {
    expect(() => mixDocuments([sources[0]!, sources[0]!])).toThrow("names of their own");
  });
});
