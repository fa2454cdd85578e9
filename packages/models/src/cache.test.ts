import { full, memory, scope, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { expectSame } from "../test/expect-same.js";
import { smallConfig } from "../test/small-config.js";
import { KvCache, type KvCacheOptions } from "./cache.js";
import type { TransformerConfig } from "./config.js";
import { Transformer } from "./transformer.js";

const variants: Record<string, Partial<TransformerConfig>> = {
  dot: {},
  "dot, windows": { attention: [{ kind: "dot", window: 5 }, { kind: "dot" }] },
  "2-simplicial": { attention: [{ kind: "simplicial" }] },
  "2-simplicial, windows": { attention: [{ kind: "simplicial", w1: 6, w2: 3 }, { kind: "dot" }] },
  "2-simplicial, w1 < w2, rope": { attention: [{ kind: "simplicial", w1: 3, w2: 7, rope: true }] },
  "dynamic rotary scaling": { ropeScaling: { type: "dynamic", factor: 2, originalLength: 12 } },
  "learned positions": { positions: "learned" },
  experts: { experts: { numExperts: 4, topK: 2 } },
};

const ids = (length: number, offset = 0) =>
  Int32Array.from({ length }, (_, i) => (i * 7 + offset + ((i * i) % 5)) % 11);

describe.each(Object.entries(variants))("KvCache of layers with %s", (_name, variant) => {
  const model = new Transformer({ ...smallConfig, ...variant });
  const params = model.init(3);

  const pass = (cache: KvCache, tokens: Int32Array) =>
    scope(() => [...model.logits(params, tensor(tokens, { shape: [1, tokens.length] }), cache).dataSync()]);

  /** Scores of what follows `length` positions that came in passes of the given sizes. */
  const expected = (sizes: readonly number[], tail: Int32Array, options: KvCacheOptions = {}) => {
    using cache = new KvCache(model.config, options);
    let from = 0;
    for (const size of sizes) {
      pass(cache, ids(from + size).subarray(from));
      from += size;
    }
    return [pass(cache, tail.subarray(0, 2)), pass(cache, tail.subarray(2))];
  };

  it("gives the same scores, whatever its memory held before", () => {
    const wanted = expected([9, 1, 20], ids(7, 3));
    // Memory of all sizes that a cache may take, which is taken again as it was left.
    for (let size = 16; size <= 2 ** 16; size *= 2) full([size], Number.NaN).dispose();
    expectSame(expected([9, 1, 20], ids(7, 3)), wanted);
  });

  it.each([
    [[9], 1],
    [[9], 4],
    [[20, 1, 1, 1], 6],
    [[13, 1, 1, 1, 1, 1, 1, 1], 1],
    [[2], 30],
  ])(
    "goes on after a rollback, to the bit as if what was taken back had never been: passes of %j, then %i",
    (sizes, wrong) => {
      const options = { rollback: wrong };
      using cache = new KvCache(model.config, options);
      let from = 0;
      for (const size of sizes) {
        pass(cache, ids(from + size).subarray(from));
        from += size;
      }
      const tail = ids(7, 3);
      for (let round = 0; round < 2; round++) {
        // Drafts that come at once, and token by token.
        for (const step of [wrong, 1]) {
          for (let at = 0; at < wrong; at += step) pass(cache, ids(step, 5 + round + at));
          expect(cache.length).toBe(from + wrong);
          cache.truncate(from);
          expect(cache.length).toBe(from);
        }
      }
      expectSame([pass(cache, tail.subarray(0, 2)), pass(cache, tail.subarray(2))], expected(sizes, tail, options));
    },
  );

  it("goes back to the start, whatever its windows have given up", () => {
    using cache = new KvCache(model.config);
    pass(cache, ids(30));
    for (const token of ids(6, 4)) pass(cache, Int32Array.of(token));
    cache.truncate(0);
    pass(cache, ids(9));
    const tail = ids(7, 3);
    expectSame([pass(cache, tail.subarray(0, 2)), pass(cache, tail.subarray(2))], expected([9], tail));
  });

  it("copies a prefix, of which both go on by themselves", () => {
    using cache = new KvCache(model.config, { rollback: 8 });
    pass(cache, ids(17));
    pass(cache, ids(5, 2));
    using copy = cache.clone({ length: 17, expected: 20, rollback: 3 });
    using whole = cache.clone();
    cache.dispose();
    const tail = ids(7, 3);
    expect(copy.length).toBe(17);
    expectSame([pass(copy, tail.subarray(0, 2)), pass(copy, tail.subarray(2))], expected([17], tail));
    copy.truncate(copy.length - 3);
    expect(whole.length).toBe(22);
    using same = new KvCache(model.config);
    pass(same, ids(17));
    pass(same, ids(5, 2));
    expectSame([pass(whole, tail)], [pass(same, tail)]);
  });
});

describe("KvCache", () => {
  const model = new Transformer({ ...smallConfig, attention: [{ kind: "dot", window: 4 }] });
  const params = model.init(1);
  const pass = (cache: KvCache, length: number) =>
    scope(() => void model.hidden(params, tensor(ids(length), { shape: [1, length] }), cache));

  it("refuses to go back to rows that a window has given up, and stays as it was", () => {
    using cache = new KvCache(model.config, { rollback: 2 });
    for (let i = 0; i < 40; i++) pass(cache, 1);
    const { earliest } = cache;
    expect(earliest).toBeLessThanOrEqual(38);
    expect(() => cache.truncate(earliest - 1)).toThrow(
      new RegExp(
        `of 40 positions, one can go back to ${earliest}\\. Make the cache with a rollback of ${41 - earliest}`,
      ),
    );
    expect(() => cache.clone({ length: earliest - 1 })).toThrow(/\[KvCache\.clone\] a windowed layer/);
    expect([cache.length, cache.earliest]).toEqual([40, earliest]);
    cache.truncate(earliest);
    expect(cache.length).toBe(earliest);
    pass(cache, 3);
  });

  it.each([-1, 1.5, 4, Number.NaN])("refuses a length of %d of three positions", (length) => {
    using cache = new KvCache(model.config);
    pass(cache, 3);
    expect(() => cache.truncate(length)).toThrow(/length must be an integer in 0\.\.3/);
    expect(() => cache.clone({ length })).toThrow(/length must be an integer in 0\.\.3/);
  });

  it.each([-1, 0.5])("refuses a rollback of %d", (rollback) => {
    expect(() => new KvCache(model.config, { rollback })).toThrow(/rollback must be a non-negative integer/);
  });

  it("takes more memory for windows only by what it is to go back", () => {
    const bytes = (options: KvCacheOptions) => {
      using cache = new KvCache(model.config, options);
      const before = memory().liveBytes;
      for (let i = 0; i < 60; i++) pass(cache, 1);
      return memory().liveBytes - before;
    };
    const row = 2 * 2 * 2 * 4 * 4; // layers, keys and values, heads, channels, bytes
    expect(bytes({ rollback: 16 }) - bytes({})).toBeLessThanOrEqual(2 * 16 * row * 2);
  });
});
