import { describe, expect, it } from "vitest";
import {
  attention,
  cachedAttention,
  concat,
  memory,
  randomNormal,
  rope,
  ropeTables,
  scope,
  slice,
  type Tensor,
  valueAndGrad,
  zeros,
} from "../index.js";

const normal = (seed: number, shape: number[]) => randomNormal({ seed }, shape);

/** Sequences with so many kept and new positions, of 4 query heads and 2 of keys; memory has more rows than are used. */
function sequencesOf(sizes: readonly (readonly [kept: number, length: number])[], B = 1) {
  return sizes.map(([kept, length], i) => {
    const all = { k: normal(2 * i, [B, kept + length, 2, 8]), v: normal(2 * i + 1, [B, kept + length, 2, 6]) };
    const room = zeros([B, 3, 2, 8]);
    const keys = concat([slice(all.k, 1, 0, kept), zeros([B, length, 2, 8]), room], 1);
    const values = concat([slice(all.v, 1, 0, kept), zeros([B, length, 2, 6]), zeros([B, 3, 2, 6])], 1);
    return { kept, length, keys, values, all, q: normal(100 + i, [B, length, 4, 8]) };
  });
}

const newRows = (sequences: ReturnType<typeof sequencesOf>) => ({
  q: concat(
    sequences.map(({ q }) => q),
    1,
  ),
  k: concat(
    sequences.map(({ all, kept }) => slice(all.k, 1, kept)),
    1,
  ),
  v: concat(
    sequences.map(({ all, kept }) => slice(all.v, 1, kept)),
    1,
  ),
});

const numbers = (x: Tensor) => [...(x.dataSync() as Float32Array)];

describe("cachedAttention", () => {
  it.each([
    [
      "the next position of several sequences",
      [
        [5, 1],
        [0, 1],
        [17, 1],
      ],
      {},
    ],
    [
      "prompts beside them",
      [
        [5, 1],
        [0, 7],
        [3, 4],
      ],
      {},
    ],
    [
      "a window",
      [
        [9, 1],
        [2, 6],
        [0, 3],
      ],
      { window: 3 },
    ],
    ["a scale and a softcap", [[4, 2]], { scale: 0.7, softcap: 2 }],
  ] as const)("is attention of each over its own rows, to the bit: %s", (_, sizes, options) => {
    scope(() => {
      const sequences = sequencesOf(sizes);
      const { q, k, v } = newRows(sequences);
      const out = cachedAttention(q, k, v, sequences, options);
      const each = sequences.map(({ q, all, kept }) => attention(q, all.k, all.v, { ...options, qOffset: kept }));
      expect(numbers(out)).toEqual(numbers(concat(each, 1)));
      for (const { keys, values, all, kept, length } of sequences) {
        expect(numbers(slice(keys, 1, 0, kept + length))).toEqual(numbers(all.k));
        expect(numbers(slice(values, 1, 0, kept + length))).toEqual(numbers(all.v));
        expect(numbers(slice(keys, 1, kept + length)).every((x) => x === 0)).toBe(true);
      }
    });
  });

  it("takes a batch of sequences of one length, views, and prefixes", () => {
    scope(() => {
      const [batch] = sequencesOf([[4, 3]], 2);
      const { q, k, v } = newRows([batch!]);
      const wide = concat([q, k], 2);
      const parts = [slice(wide, 2, 0, 4), slice(wide, 2, 4)] as const;
      const out = cachedAttention(parts[0], parts[1], v, [batch!]);
      expect(numbers(out)).toEqual(numbers(attention(q, batch!.all.k, batch!.all.v, { qOffset: 4 })));
      const [prompt] = sequencesOf([[0, 6]]);
      const own = newRows([prompt!]);
      const seen = cachedAttention(own.q, own.k, own.v, [{ ...prompt!, prefix: 4 }]);
      expect(numbers(seen)).toEqual(numbers(attention(own.q, own.k, own.v, { prefix: 4 })));
    });
  });

  it.each([
    ["halves of all channels", 8, false],
    ["neighbours of some channels", 6, true],
    ["no channel", 0, false],
  ])("turns queries and new keys, to the bits of rope() before it: %s", (_, turned, interleaved) => {
    scope(() => {
      const sequences = sequencesOf([
        [5, 1],
        [0, 7],
        [3, 4],
      ]);
      const plain = sequences.map((x) => ({ ...x, keys: x.keys.clone(), values: x.values.clone() }));
      const { q, k, v } = newRows(sequences);
      const none = zeros([12, 0]);
      const tables = turned > 0 ? ropeTables(12, turned, { start: 3 }) : { cos: none, sin: none };
      const out = cachedAttention(q, k, v, sequences, { rope: { ...tables, interleaved } });
      const [turnedQ, turnedK] = [q, k].map((x) => rope(x, tables.cos, tables.sin, { interleaved })) as [
        Tensor,
        Tensor,
      ];
      expect(numbers(out)).toEqual(numbers(cachedAttention(turnedQ, turnedK, v, plain)));
      for (const [i, { keys, values }] of plain.entries()) {
        expect(numbers(sequences[i]!.keys)).toEqual(numbers(keys));
        expect(numbers(sequences[i]!.values)).toEqual(numbers(values));
      }
    });
  });

  it("turns a batch, whose queries and keys are views, in bfloat16", () => {
    scope(() => {
      const narrow = (x: Tensor) => x.astype("bfloat16");
      const [batch] = sequencesOf([[4, 3]], 2);
      const memories = () => ({ ...batch!, keys: narrow(batch!.keys), values: narrow(batch!.values) });
      const { q, k, v } = newRows([batch!]);
      const wide = narrow(concat([q, k], 2));
      const parts = [slice(wide, 2, 0, 4), slice(wide, 2, 4)] as const;
      const { cos, sin } = ropeTables(3, 8, { start: 4 });
      const [own, other] = [memories(), memories()];
      const out = cachedAttention(...parts, narrow(v), [own], { rope: { cos, sin } });
      const [turnedQ, turnedK] = parts.map((x) => rope(x, cos, sin)) as [Tensor, Tensor];
      expect(out.dataSync()).toEqual(cachedAttention(turnedQ, turnedK, narrow(v), [other]).dataSync());
      expect(own.keys.dataSync()).toEqual(other.keys.dataSync());
      expect(own.values.dataSync()).toEqual(other.values.dataSync());
    });
  });

  it("frees what it makes but the result", () => {
    const [sequence] = sequencesOf([[4, 3]]);
    const { q, k, v } = newRows([sequence!]);
    const before = memory().tensors;
    const out = cachedAttention(q, k, v, [sequence!]);
    expect(memory().tensors).toBe(before + 1);
    out.dispose();
  });

  it("refuses what doesn't fit, and writes nothing then", () => {
    scope(() => {
      const [sequence, other] = sequencesOf([
        [4, 3],
        [1, 2],
      ]);
      const { q, k, v } = newRows([sequence!]);
      const before = numbers(sequence!.keys);
      const call = (change: object, ...more: (typeof sequence & object)[]) =>
        cachedAttention(q, k, v, [{ ...sequence!, ...change }, ...more]);
      expect(() => call({ kept: 8 })).toThrow(
        /sequences\[0\]\.keys must be rows for \[1, 11, 2, 8\] or more; received \[1, 10, 2, 8\]/,
      );
      expect(() => call({ values: sequence!.keys })).toThrow(/sequences\[0\]\.values must be rows for \[1, 7, 2, 6\]/);
      expect(() => call({ length: 2 })).toThrow(/must add up to the 3 positions.*received 2/);
      expect(() => call({}, other!)).toThrow(/received 3, 2/);
      expect(() => call({ kept: -1 })).toThrow(/sequences\[0\]\.kept must be a non-negative integer; received -1/);
      expect(() => call({ prefix: 0.5 })).toThrow(/sequences\[0\]\.prefix/);
      expect(() => call({ keys: sequence!.keys.astype("float64") })).toThrow(/dtypes differ/);
      expect(() => cachedAttention(q, k, v, [sequence!], { rope: ropeTables(2, 8) })).toThrow(
        /tables must be \[T, R\/2\].*received \[2, 4\] for \[1, 3, 4, 8\]/,
      );
      expect(numbers(sequence!.keys)).toEqual(before);
    });
  });

  it("has no gradient", () => {
    const [sequence] = sequencesOf([[4, 3]]);
    const { q, k, v } = newRows([sequence!]);
    expect(() => valueAndGrad((p) => cachedAttention(p.q!, k, v, [sequence!]).sum(), { q })).toThrow(
      /changes its memory in place and has no gradient\. Use attention\(\)/,
    );
  });
});
