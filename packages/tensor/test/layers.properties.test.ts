import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  attention,
  concat,
  crossEntropy,
  linear,
  linearCrossEntropy,
  rmsNorm,
  rope,
  ropeTables,
  scope,
  softmax,
  type Tensor,
  tensor,
  valueAndGrad,
} from "../src/index.js";
import { expectClose, expectSameBits, softmaxError, sumError, unitRoundoff } from "./compare.js";
import { sample, sampleIds } from "./numbers.js";

const u = unitRoundoff.float64;
const sameWithin = (error: number) => (a: Tensor, b: Tensor, label?: string) =>
  expectClose(a.dataSync(), b.dataSync(), { atol: error, rtol: error }, label);
const inScope = (fn: () => void) => () => scope(fn);
const qkv = (N: number, H: number, K: number, D = 4, seed = 1): [Tensor, Tensor, Tensor] => [
  sample([2, N, H, D], seed, { low: -2, high: 2 }),
  sample([2, N, K, D], seed + 1, { low: -2, high: 2 }),
  sample([2, N, K, D], seed + 2),
];

describe("attention", () => {
  // 4 channels with queries and keys up to 2 make logits up to 4 · 2 · 2 / √4; at most 33 keys.
  const same = sameWithin(softmaxError({ channels: 4, logit: 8, keys: 33 }, "float64"));

  it(
    "computes a worked example",
    inScope(() => {
      // One query, keys with logits ln 1 and ln 3: weights 1/4 and 3/4 of the values 4 and 8: 1 + 6 = 7.
      const q = tensor([1], { dtype: "float64" }).reshape([1, 1, 1, 1]);
      const k = tensor([0, Math.log(3)], { dtype: "float64" }).reshape([1, 2, 1, 1]);
      const v = tensor([4, 8], { dtype: "float64" }).reshape([1, 2, 1, 1]);
      expectClose(attention(q, k, v).dataSync(), [7], { rtol: 8 * u });
    }),
  );

  it(
    "has no window when it is as long as the keys",
    inScope(() => {
      const [q, k, v] = qkv(19, 2, 1);
      for (const window of [19, 20, 10_000]) same(attention(q, k, v, { window }), attention(q, k, v));
    }),
  );

  it(
    "is causal and local to the bit",
    inScope(() => {
      const [q, k, v] = qkv(33, 2, 1);
      const bump = tensor(
        Float64Array.from({ length: 33 }, (_, i) => (i === 12 ? 5 : 0)),
        { shape: [1, 33, 1, 1] },
      );
      const [before, after] = [
        attention(q, k, v, { window: 8 }),
        attention(q, k.add(bump), v.add(bump), { window: 8 }),
      ];
      const rows = (x: Tensor, from: number, to: number) => x.slice(1, from, to).dataSync();
      expectSameBits(rows(after, 0, 12), rows(before, 0, 12));
      expectSameBits(rows(after, 20, 33), rows(before, 20, 33));
      for (let i = 12; i < 20; i++) expect(rows(after, i, i + 1)).not.toEqual(rows(before, i, i + 1));
    }),
  );

  it(
    "with grouped queries equals repeated keys and values",
    inScope(() => {
      const [q, k, v] = qkv(9, 6, 2);
      const repeat = (x: Tensor) => x.reshape([2, 9, 2, 1, 4]).expand([2, 9, 2, 3, 4]).reshape([2, 9, 6, 4]);
      same(attention(q, repeat(k), repeat(v)), attention(q, k, v));
    }),
  );

  it(
    "with a huge softcap equals attention without",
    inScope(() => {
      const [q, k, v] = qkv(9, 2, 2);
      // c tanh(s / c) = s − s³/(3c²) with |s| ≤ 2·2·4/2 = 8, and tanh is right to some roundings of 1, which c magnifies.
      const c = 1e5;
      const atol = 8 * (8 ** 3 / (3 * c ** 2) + c * u);
      expectClose(attention(q, k, v, { softcap: c }).dataSync(), attention(q, k, v).dataSync(), { atol });
    }),
  );

  it(
    "gives rows without keys zeros and zero gradients",
    inScope(() => {
      // Queries at positions 5 and 6, keys at 0 and 1, window 5: the first sees key 1, the second none.
      const [q, k, v] = [sample([1, 2, 1, 3], 1), sample([1, 2, 1, 3], 2), sample([1, 2, 1, 3], 3)];
      const { aux, grads } = valueAndGrad(
        (p: Tensor[]) => {
          const out = attention(p[0]!, p[1]!, p[2]!, { window: 5, qOffset: 5 });
          return { loss: out.sum(), aux: out };
        },
        [q, k, v],
      );
      same(aux.slice(1, 0, 1), v.slice(1, 1, 2));
      expect([...aux.slice(1, 1, 2).dataSync()]).toEqual([0, 0, 0]);
      expect([...grads[0]!.slice(1, 1, 2).dataSync()]).toEqual([0, 0, 0]);
      expect(grads.every((g) => g.dataSync().every(Number.isFinite))).toBe(true);
      const none = attention(q, k.slice(1, 0, 0), v.slice(1, 0, 0), { qOffset: 0 });
      expect([...none.dataSync()]).toEqual(new Array(6).fill(0));
    }),
  );

  it(
    "gives the same in one pass and token by token from a cache",
    inScope(() => {
      const [q, k, v] = qkv(21, 4, 2);
      for (const options of [{}, { window: 6 }, { softcap: 3 }]) {
        const steps = Array.from({ length: 21 }, (_, i) =>
          attention(q.slice(1, i, i + 1), k.slice(1, 0, i + 1), v.slice(1, 0, i + 1), options),
        );
        same(concat(steps, 1), attention(q, k, v, options));
      }
    }),
  );

  it(
    "doesn't round away rows of large logits",
    inScope(() => {
      const [q, k, v] = qkv(17, 1, 1);
      const out = attention(q.mul(1e4), k, v);
      expect(out.dataSync().every(Number.isFinite)).toBe(true);
      // Softmax of huge logits picks the largest: each row is a row of v.
      const [scores, values, rows] = [
        q
          .mul(1e4)
          .transpose(1, 2)
          .matmul(k.permute([0, 2, 3, 1]))
          .dataSync(),
        v.dataSync(),
        out.dataSync(),
      ];
      for (let b = 0; b < 2; b++)
        for (let i = 0; i < 17; i++) {
          const row = Array.from(scores.slice((b * 17 + i) * 17, (b * 17 + i) * 17 + i + 1));
          const [first = 0, second = Number.NEGATIVE_INFINITY] = [...row].sort((x, y) => y - x);
          if (first - second < 200) continue;
          const j = row.indexOf(first);
          expectClose(
            rows.slice((b * 17 + i) * 4, (b * 17 + i + 1) * 4),
            values.slice((b * 17 + j) * 4, (b * 17 + j + 1) * 4),
            { atol: sumError(17, "float64") },
          );
        }
    }),
  );
});

describe("softmax", () => {
  it("has rows that sum to 1, whatever is added to them", () => {
    const row = fc.array(fc.double({ min: -500, max: 500, noNaN: true }), { minLength: 1, maxLength: 70 });
    fc.assert(
      fc.property(row, fc.integer({ min: -300, max: 300 }), (values, shift) =>
        scope(() => {
          const x = tensor(values, { dtype: "float64" });
          const y = softmax(x);
          expectClose(y.sum().dataSync(), [1], { atol: 4 * values.length * u });
          expectClose(softmax(x.add(shift)).dataSync(), y.dataSync(), { atol: 4 * 1000 * u }, "shifted");
        }),
      ),
    );
  });

  it(
    "gives a row of −∞ zeros, and NaN only where there is one",
    inScope(() => {
      const { NEGATIVE_INFINITY: inf, NaN: nan } = Number;
      const y = softmax(
        tensor([
          [inf, inf, inf],
          [0, inf, 0],
          [nan, 1, 2],
        ]),
      );
      expect([...y.dataSync().slice(0, 6)]).toEqual([0, 0, 0, 0.5, 0, 0.5]);
      expect([...y.dataSync().slice(6)].every(Number.isNaN)).toBe(true);
    }),
  );
});

describe("rmsNorm", () => {
  // The mean of 37 squares.
  const error = 2 * sumError(37, "float64");
  const same = sameWithin(error);

  it(
    "doesn't depend on the scale of its input",
    inScope(() => {
      const [x, w] = [sample([5, 37], 1), sample([37], 2)];
      for (const scale of [2 ** -20, 3.7, 2 ** 20])
        same(rmsNorm(x.mul(scale), w, { eps: 0 }), rmsNorm(x, w, { eps: 0 }));
    }),
  );

  it(
    "gives rows of mean square 1",
    inScope(() => {
      const y = rmsNorm(sample([5, 37], 1), tensor(new Float64Array(37).fill(1)), { eps: 0 });
      expectClose(y.square().mean({ axis: 1 }).dataSync(), new Array(5).fill(1), { atol: error });
    }),
  );
});

describe("rope", () => {
  // Sums of 8 products of size up to 1, whose factors are sums of two.
  const same = sameWithin(2 * 8 * sumError(8 + 2 * 2, "float64"));

  it.each([false, true])("keeps norms and sees only distances (interleaved: %s)", (interleaved) => {
    scope(() => {
      const N = 12;
      const { cos, sin } = ropeTables(N + 5, 8, { dtype: "float64" });
      const [x, y] = [sample([1, N, 2, 8], 1), sample([1, N, 2, 8], 2)];
      const at = (z: Tensor, offset: number) =>
        rope(z, cos.slice(0, offset, offset + N), sin.slice(0, offset, offset + N), { interleaved });
      same(at(x, 0).square().sum({ axis: -1 }), x.square().sum({ axis: -1 }), "norms");
      const scores = (offset: number) =>
        at(x, offset)
          .transpose(1, 2)
          .matmul(at(y, offset).permute([0, 2, 3, 1]));
      same(scores(5), scores(0), "scores");
      same(at(x, 0).slice(1, 0, 1), x.slice(1, 0, 1), "position 0");
    });
  });

  it(
    "turns pairs by the angles, and leaves the channels past the table",
    inScope(() => {
      // 90° at position 1: (1, 0) becomes (0, 1); halves are pairs (0, 1) of R = 2.
      const x = tensor([1, 0, 5, 6]).reshape([1, 1, 1, 4]);
      const [cos, sin] = [tensor([[0]]), tensor([[1]])];
      expect([...rope(x, cos, sin).dataSync()]).toEqual([0, 1, 5, 6]);
      expect([...rope(x, cos.slice(1, 0, 0), sin.slice(1, 0, 0)).dataSync()]).toEqual([1, 0, 5, 6]);
    }),
  );
});

describe("crossEntropy", () => {
  // Logits are sums of at most 17 products of size up to 1 (or 5 of size 3), the softmax is over at most 1031 of them.
  const same = sameWithin(softmaxError({ channels: 17, logit: 17, keys: 1031 }, "float64"));

  it(
    "is ln V for equal logits, and the fused form is the same loss with the same gradients",
    inScope(() => {
      const targets = sampleIds([7], 1, 11);
      expectClose(crossEntropy(tensor(new Float64Array(77), { shape: [7, 11] }), targets).dataSync(), [Math.log(11)], {
        rtol: 8 * u,
      });
      const [x, w] = [sample([7, 5], 2), sample([11, 5], 3, { low: -3, high: 3 })];
      for (const options of [{}, { softcap: 2, labelSmoothing: 0.2, zLoss: 0.05 }]) {
        const plain = valueAndGrad((p: Tensor[]) => crossEntropy(linear(p[0]!, p[1]!), targets, options), [x, w]);
        const fused = valueAndGrad((p: Tensor[]) => linearCrossEntropy(p[0]!, p[1]!, targets, options), [x, w]);
        same(fused.value, plain.value);
        for (const i of [0, 1]) same(fused.grads[i]!, plain.grads[i]!);
      }
    }),
  );

  it(
    "fuses batches and vocabularies larger than its blocks",
    inScope(() => {
      const targets = sampleIds([3, 211], 1, 1031);
      const [x, w] = [sample([3, 211, 17], 2), sample([1031, 17], 3)];
      const plain = valueAndGrad((p: Tensor[]) => crossEntropy(linear(p[0]!, p[1]!), targets), [x, w]);
      const fused = valueAndGrad((p: Tensor[]) => linearCrossEntropy(p[0]!, p[1]!, targets), [x, w]);
      same(fused.value, plain.value);
      for (const i of [0, 1]) same(fused.grads[i]!, plain.grads[i]!);
    }),
  );
});
