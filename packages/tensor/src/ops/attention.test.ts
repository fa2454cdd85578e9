import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  expectClose,
  expectSameBits,
  type FloatDType,
  halfRoundoff,
  largest,
  softmaxError,
  unitRoundoff,
} from "../../test/compare.js";
import { sample } from "../../test/numbers.js";
import {
  type AttentionOptions,
  attention,
  attentionWithLse,
  concat,
  DTypeError,
  mergeAttention,
  OptionError,
  randomNormal,
  rope as ropeOf,
  ropeTables,
  ShapeError,
  scope,
  split,
  type Tensor,
  tensor,
  valueAndGrad,
} from "../index.js";

type Numbers = ArrayLike<number>;
const inScope = (fn: () => void) => () => scope(fn);
const ids = (rows: number[][]) => tensor(Int32Array.from(rows.flat()), { shape: [rows.length, rows[0]!.length] });

interface Sizes {
  T: number;
  S: number;
  H: number;
  K: number;
  D: number;
}
function qkv({ T, S, H, K, D }: Sizes, seed = 1, dtype: FloatDType = "float64"): [Tensor, Tensor, Tensor] {
  return [
    sample([1, T, H, D], seed, { low: -2, high: 2, dtype }),
    sample([1, S, K, D], seed + 1, { low: -2, high: 2, dtype }),
    sample([1, S, K, D], seed + 2, { dtype }),
  ];
}
/** Logits are sums of D products of size up to 4, over √D. */
const errorOf = ({ S, D }: Sizes, dtype: FloatDType = "float64") =>
  softmaxError({ channels: D, logit: 4 * Math.sqrt(D), keys: S }, dtype);

interface Masks {
  causal: boolean;
  window?: number;
  qOffset: number;
  softcap: number;
  qDoc?: number[];
  kDoc?: number[];
  prefix?: number[];
}

/** The definition, key by key, in float64 for one row of a batch. */
function reference([q, k, v]: [Tensor, Tensor, Tensor], { T, S, H, K, D }: Sizes, masks: Masks) {
  const [qs, ks, vs] = [q, k, v].map((x) => x.dataSync());
  const out = new Float64Array(T * H * D);
  const lse = new Float64Array(H * T);
  const { causal, window = Number.POSITIVE_INFINITY, qOffset, softcap, qDoc, kDoc, prefix } = masks;
  for (let t = 0; t < T; t++) {
    const i = qOffset + t;
    const start = kDoc ? kDoc.indexOf(qDoc![t]!) : 0;
    const allowed = (j: number) =>
      (!causal || j <= i || (prefix !== undefined && j < start + prefix[t]!)) &&
      j > i - window &&
      (causal || j < i + window) &&
      (!kDoc || kDoc[j] === qDoc![t]);
    for (let h = 0; h < H; h++) {
      const g = Math.floor((h * K) / H);
      const seen = Array.from({ length: S }, (_, j) => j).filter(allowed);
      const logits = seen.map((j) => {
        let dot = 0;
        for (let c = 0; c < D; c++) dot += qs![(t * H + h) * D + c]! * ks![(j * K + g) * D + c]!;
        dot /= Math.sqrt(D);
        return softcap > 0 ? softcap * Math.tanh(dot / softcap) : dot;
      });
      const top = Math.max(...logits);
      const whole = logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0);
      lse[h * T + t] = seen.length === 0 ? Number.NEGATIVE_INFINITY : top + Math.log(whole);
      for (const [n, j] of seen.entries()) {
        const weight = Math.exp(logits[n]! - top) / whole;
        for (let c = 0; c < D; c++) out[(t * H + h) * D + c]! += weight * vs![(j * K + g) * D + c]!;
      }
    }
  }
  return { out, lse };
}

function optionsOf({ qDoc, kDoc, prefix, ...rest }: Masks): AttentionOptions {
  return {
    ...rest,
    ...(qDoc && kDoc && { documents: { q: ids([qDoc]), k: ids([kDoc]) } }),
    ...(prefix && { prefix: ids([prefix]) }),
  };
}

describe("attention with masks", () => {
  it(
    "sees its own document only",
    inScope(() => {
      // Equal logits: a mean over the keys seen. Documents {0}, {1, 2}: means 1; 2, (2 + 6) / 2 = 4. Padding sees itself: 9.
      const q = tensor(new Float64Array(4), { shape: [1, 4, 1, 1] });
      const v = tensor(Float64Array.of(1, 2, 6, 9), { shape: [1, 4, 1, 1] });
      const { out, lse } = attentionWithLse(q, q, v, { documents: ids([[0, 1, 1, -1]]) });
      expectClose(out.dataSync(), [1, 2, 4, 9], { rtol: 4 * unitRoundoff.float64 });
      expectClose(lse.dataSync(), [0, 0, Math.log(2), 0], { rtol: 4 * unitRoundoff.float64 });
    }),
  );

  it(
    "counts a prefix from the start of the document, within the window",
    inScope(() => {
      const q = tensor(new Float64Array(5), { shape: [1, 5, 1, 1] });
      const v = tensor(Float64Array.of(1, 2, 6, 10, 20), { shape: [1, 5, 1, 1] });
      const means = (options: AttentionOptions) => attention(q, q, v, options).dataSync();
      const close = { rtol: 4 * unitRoundoff.float64 };
      // Keys 0..2 for all, then causal: 9/3, 9/3, 9/3, 19/4, 39/5.
      expectClose(means({ prefix: 3 }), [3, 3, 3, 4.75, 7.8], close);
      // A window of 2 keeps the key before and what comes later: 9/3, 9/3, 8/2, 16/2, 30/2.
      expectClose(means({ prefix: 3, window: 2 }), [3, 3, 4, 8, 15], close);
      // Documents {0, 1} and {2, 3, 4} with prefix 2: 3/2, 3/2, 16/2, 16/2, 36/3.
      expectClose(means({ prefix: 2, documents: ids([[0, 0, 1, 1, 1]]) }), [1.5, 1.5, 8, 8, 12], close);
    }),
  );

  it("agrees with the definition", () => {
    const sizes = fc
      .record({ T: fc.integer({ min: 1, max: 70 }), S: fc.integer({ min: 1, max: 140 }), K: fc.constantFrom(1, 2) })
      .chain((s) =>
        fc.record({ H: fc.constantFrom(s.K, 3 * s.K), D: fc.constantFrom(1, 4, 19) }).map((r) => ({ ...s, ...r })),
      );
    const masked = sizes.chain((s) => {
      const list = (n: number, max: number) => fc.array(fc.integer({ min: -1, max }), { minLength: n, maxLength: n });
      // Runs, with gaps or in order, or no documents.
      const documents = fc.oneof(
        fc.constant({}),
        fc.record({ qDoc: list(s.T, 2), kDoc: list(s.S, 2) }),
        fc.integer({ min: 1, max: 40 }).map((length) => ({
          qDoc: Array.from({ length: s.T }, (_, t) => Math.floor(t / length)),
          kDoc: Array.from({ length: s.S }, (_, j) => Math.floor(j / length)),
        })),
      );
      const free = fc.record({
        causal: fc.boolean(),
        qOffset: fc.integer({ min: -5, max: s.S }),
        softcap: fc.constantFrom(0, 3),
      });
      const rest = fc.record(
        { window: fc.integer({ min: 1, max: s.S + 5 }), prefix: list(s.T, s.S) },
        { requiredKeys: [] },
      );
      return fc.tuple(free, documents, rest).map(([f, d, { prefix, ...r }]) => ({
        s,
        masks: { ...f, ...d, ...r, ...(f.causal && prefix && { prefix }) } as Masks,
      }));
    });
    fc.assert(
      fc.property(masked, fc.integer({ max: 1000 }), ({ s, masks }, seed) =>
        scope(() => {
          for (const dtype of ["float64", "float32"] as const) {
            const tensors = qkv(s, seed, dtype);
            const want = reference(tensors, s, masks);
            const { out, lse } = attentionWithLse(...tensors, optionsOf(masks));
            const error = errorOf(s, dtype);
            expectClose(out.dataSync(), want.out, { atol: error }, `${dtype} out`);
            expectClose(lse.dataSync(), want.lse, { atol: error, rtol: error }, `${dtype} lse`);
          }
        }),
      ),
      { numRuns: 150 },
    );
  });

  it(
    "computes packed documents as each alone, gradients included",
    inScope(() => {
      const lengths = [1, 30, 64, 5, 50];
      const total = lengths.reduce((a, b) => a + b);
      const s = { T: total, S: total, H: 4, K: 2, D: 8 };
      const inputs = qkv(s);
      const documents = ids([lengths.flatMap((n, i) => new Array<number>(n).fill(i))]);
      const upstream = sample([1, total, 4, 8], 9);
      const packed = valueAndGrad((p: [Tensor, Tensor, Tensor]) => {
        const out = attention(...p, { documents, window: 40 });
        return { loss: out.mul(upstream).sum(), aux: out };
      }, inputs);
      const alone = valueAndGrad((p: [Tensor, Tensor, Tensor]) => {
        let start = 0;
        const outs = lengths.map((n) => {
          const [q, k, v] = p.map((x) => x.slice(1, start, start + n)) as [Tensor, Tensor, Tensor];
          start += n;
          return attention(q, k, v, { window: 40 });
        });
        const out = concat(outs, 1);
        return { loss: out.mul(upstream).sum(), aux: out };
      }, inputs);
      const error = errorOf(s);
      expectClose(packed.aux.dataSync(), alone.aux.dataSync(), { atol: error }, "out");
      // A gradient is a sum over at most 64 rows of products with logits' slopes, whose factors are at most 2.
      for (const [i, grad] of packed.grads.entries())
        expectClose(grad.dataSync(), alone.grads[i]!.dataSync(), { atol: 2 * 64 * error }, `gradient ${i}`);
    }),
  );

  it.each([{}, { window: 30 }, { softcap: 4 }, { prefix: 20 }])("is causal to the bit with %o", (options) => {
    scope(() => {
      const [q, k, v] = qkv({ T: 130, S: 130, H: 2, K: 1, D: 16 }, 1, "float32");
      const at = 77;
      const changed = [q, k, v].map((x) =>
        concat([x.slice(1, 0, at), x.slice(1, at, at + 1).add(3), x.slice(1, at + 1)], 1),
      ) as [Tensor, Tensor, Tensor];
      const early = (out: Tensor) => out.slice(1, 0, at).clone().dataSync();
      expectSameBits(early(attention(...changed, options)), early(attention(q, k, v, options)));
    });
  });

  it(
    "decodes from a cache what the whole sequence gives, over few keys and many",
    inScope(() => {
      for (const S of [5, 65, 300, 2100]) {
        const s = { T: S, S, H: 4, K: 2, D: 8 };
        const [q, k, v] = qkv(s, 1, "float32");
        const last = (x: Tensor, n: number) => x.slice(1, S - n);
        const whole = attention(q, k, v);
        for (const n of [1, 3, 5]) {
          const decoded = attention(last(q, n), k, v).dataSync();
          expectClose(decoded, last(whole, n).dataSync(), { atol: errorOf(s, "float32") }, `${n} of ${S}`);
        }
      }
    }),
  );

  it(
    "gives queries without keys zeros, −∞, and no gradient, also without any keys",
    inScope(() => {
      const inputs = qkv({ T: 3, S: 3, H: 1, K: 1, D: 4 });
      const documents = { q: ids([[0, 5, 0]]), k: ids([[0, 0, 1]]) };
      const { aux, grads } = valueAndGrad((p: [Tensor, Tensor, Tensor]) => {
        const { out, lse } = attentionWithLse(...p, { documents });
        return { loss: out.sum(), aux: { out, lse } };
      }, inputs);
      expect([...aux.out.dataSync().slice(4, 8)]).toEqual([0, 0, 0, 0]);
      expect(aux.lse.dataSync()[1]).toBe(Number.NEGATIVE_INFINITY);
      expect([...grads[0].dataSync().slice(4, 8)]).toEqual([0, 0, 0, 0]);
      expect([...grads[1].dataSync().slice(8), ...grads[2].dataSync().slice(8)]).toEqual(new Array(8).fill(0));
      const none = attentionWithLse(inputs[0], inputs[1].slice(1, 0, 0), inputs[2].slice(1, 0, 0), { qOffset: 0 });
      expect([...none.out.dataSync()]).toEqual(new Array(12).fill(0));
      expect([...none.lse.dataSync()]).toEqual(new Array(3).fill(Number.NEGATIVE_INFINITY));
    }),
  );

  const [q, k, v] = qkv({ T: 4, S: 6, H: 2, K: 1, D: 4 });
  const wrong = (options: object) => () => attention(q, k, v, options as AttentionOptions);
  const six = ids([[0, 0, 0, 0, 0, 0]]);
  it.each([
    ["documents of another length", wrong({ documents: six }), ShapeError, "documents of queries must be [B, T]"],
    [
      "documents of keys of another length",
      wrong({ documents: { q: ids([[0, 0, 0, 0]]), k: ids([[0]]) } }),
      ShapeError,
      "documents of keys",
    ],
    ["documents that aren't int32", wrong({ documents: { q: sample([1, 4], 1), k: six } }), DTypeError, "int32"],
    ["a negative prefix", wrong({ prefix: -1 }), OptionError, "prefix must be a non-negative integer"],
    [
      "a prefix of another batch size",
      wrong({ prefix: tensor(Int32Array.of(1, 2)) }),
      ShapeError,
      "prefix must be [B] or [B, T]",
    ],
    ["a prefix of floats", wrong({ prefix: sample([1], 1) }), DTypeError, "int32"],
    ["a prefix without causality", wrong({ prefix: 2, causal: false }), OptionError, "causal: false"],
    ["a fractional offset", wrong({ qOffset: 0.5 }), OptionError, "qOffset must be an integer"],
    ["nothing to merge", () => mergeAttention([]), OptionError, "at least one part"],
    [
      "parts of two shapes",
      () => mergeAttention([attentionWithLse(q, k, v), { out: q, lse: sample([1, 2, 3], 1) }]),
      ShapeError,
      "parts[1]",
    ],
  ] as const)("refuses %s", (_name, call, type, message) => {
    expect(call).toThrow(type);
    expect(call).toThrow(message);
  });
});

describe("attention with rope", () => {
  const [B, T] = [2, 37];

  for (const dtype of ["float32", "float64", "bfloat16"] as const) {
    const tables = (turned: number, interleaved: boolean) => ({
      ...ropeTables(T, turned, { dtype: dtype === "float64" ? "float64" : "float32" }),
      interleaved,
    });
    const normal = (seed: number, shape: number[]) => randomNormal({ seed }, shape, { dtype });
    const wide = dtype === "bfloat16" ? "float32" : dtype;

    it.each([
      [4, 4, 12, 12, false],
      [4, 2, 12, 8, false],
      [4, 1, 12, 12, true],
      [3, 3, 12, 6, true],
      [2, 1, 64, 64, false],
    ])(`is that of turned queries and keys, ${dtype}, %d and %d heads of %d, %d turned, %s`, (...row) => {
      const [H, K, D, turned, interleaved] = row;
      scope(() => {
        const rope = tables(turned, interleaved);
        const turn = (x: Tensor) => ropeOf(x, rope.cos, rope.sin, { interleaved });
        const weights = normal(9, [B, T, H, D]);
        const run = (attend: (q: Tensor, k: Tensor, v: Tensor) => Tensor, qkv: Tensor) =>
          valueAndGrad((p) => {
            const [q, k, v] = split(p, [H, K, K], 2) as [Tensor, Tensor, Tensor];
            return attend(q, k, v).mul(weights).sum();
          }, qkv);
        const heads = normal(1, [B, T, H + 2 * K, D]);
        const apart = (x: Tensor) => x.add(0);
        const before = run((q, k, v) => attention(turn(q), turn(k), v, { window: 20 }), heads);
        for (const place of [(x: Tensor) => x, apart]) {
          const inside = run((q, k, v) => attention(place(q), place(k), place(v), { rope, window: 20 }), heads);
          expect(inside.value.dataSync()).toEqual(before.value.dataSync());
          const [got, want] = [inside, before].map(({ grads }) => grads.astype(wide).dataSync()) as Numbers[];
          // Turned back before the one rounding to 16 bits instead of between two.
          const atol = dtype === "bfloat16" ? 3 * halfRoundoff.bfloat16 * largest(want!) : 0;
          expectClose(got!, want!, { atol });
        }
      });
    });
  }

  it(
    "refuses tables that don't fit, and keys of other positions",
    inScope(() => {
      const [q, k, v] = qkv({ T: 3, S: 5, H: 2, K: 2, D: 4 });
      const rope = ropeTables(3, 4, { dtype: "float64" });
      expect(() => attention(q, k, v, { rope })).toThrow("rope turns queries and keys at the same positions");
      expect(() => attention(q, q, q, { rope: ropeTables(4, 4, { dtype: "float64" }) })).toThrow("tables must be");
      expect(() => attention(q, q, q, { rope: ropeTables(3, 4) })).toThrow(DTypeError);
      const still = { cos: rope.cos.slice(1, 0, 0), sin: rope.sin.slice(1, 0, 0) };
      expect(attention(q, q, q, { rope: still }).dataSync()).toEqual(attention(q, q, q).dataSync());
    }),
  );
});

describe("mergeAttention", () => {
  it("joins any cuts of the keys, those without keys for a query included", () => {
    const s = { T: 5, S: 23, H: 2, K: 1, D: 4 };
    const tensors = qkv(s);
    const [q, k, v] = tensors;
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 22 })), fc.boolean(), (inner, causal) =>
        scope(() => {
          const cuts = [0, ...inner.sort((a, b) => a - b), 23];
          const qOffset = 10;
          const parts = cuts.slice(1).map((to, i) =>
            attentionWithLse(q, k.slice(1, cuts[i]!, to), v.slice(1, cuts[i]!, to), {
              causal,
              qOffset: qOffset - cuts[i]!,
            }),
          );
          const { out, lse } = mergeAttention(parts);
          const whole = attentionWithLse(q, k, v, { causal, qOffset });
          expectClose(out.dataSync(), whole.out.dataSync(), { atol: 2 * errorOf(s) });
          expectClose(lse.dataSync(), whole.lse.dataSync(), { atol: 2 * errorOf(s) });
        }),
      ),
    );
  });

  it(
    "keeps a query without keys in any part at zero",
    inScope(() => {
      const [q, k, v] = qkv({ T: 2, S: 4, H: 1, K: 1, D: 2 });
      const { aux, grads } = valueAndGrad(
        (p: Tensor[]) => {
          const nothing = attentionWithLse(p[0]!, p[1]!, p[2]!, { qOffset: -2 });
          const { out, lse } = mergeAttention([nothing, nothing]);
          return { loss: out.sum(), aux: { out, lse } };
        },
        [q, k, v],
      );
      expect([...aux.out.dataSync()]).toEqual([0, 0, 0, 0]);
      expect([...aux.lse.dataSync()]).toEqual([Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]);
      for (const grad of grads) expect([...grad.dataSync()].every((x) => x === 0)).toBe(true);
    }),
  );
});
