/** The sharp properties of 2-simplicial attention: reductions, symmetries and invariances that only a right implementation has. */
import { engine } from "@llmeff/native";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  attention,
  concat,
  cos,
  ones,
  type SimplicialAttentionOptions,
  scope,
  simplicialAttention,
  sin,
  type Tensor,
  tensor,
  valueAndGrad,
  zeros,
} from "../src/index.js";
import { expectClose, expectSameBits, largest, softmaxError, sumError } from "./compare.js";
import { sample } from "./numbers.js";

const dtype = "float64";
/** At most 9 channels of three factors up to 2 make logits up to 9 · 2³ / √9; at most 40 · 40 pairs; values are products of two up to 2. */
const error = softmaxError({ channels: 9, logit: 24, keys: 40 * 40 }, dtype);
const tolerance = { atol: 4 * error, rtol: error };

interface Shape {
  N: number;
  H: number;
  K: number;
  D: number;
  Dv?: number;
}

function inputsOf({ N, H, K, D, Dv = D }: Shape, seed = 1, B = 2): [Tensor, Tensor, Tensor, Tensor, Tensor] {
  const x = (heads: number, width: number, i: number) =>
    sample([B, N, heads, width], seed * 10 + i, { low: -2, high: 2 });
  return [x(H, D, 0), x(K, D, 1), x(K, D, 2), x(K, Dv, 3), x(K, Dv, 4)];
}

type Inputs = ReturnType<typeof inputsOf>;
const run = (inputs: readonly Tensor[], options: SimplicialAttentionOptions) =>
  simplicialAttention(...(inputs as Inputs), options);

function gradientsOf(inputs: Inputs, options: SimplicialAttentionOptions, dout: Tensor): Inputs {
  return valueAndGrad((xs: Inputs) => run(xs, options).mul(dout).sum(), inputs).grads;
}

/** Output and log-sum-exp straight from the kernel. */
function withLse([q, k1, k2, v1, v2]: Inputs, options: SimplicialAttentionOptions) {
  const { scale, causal = true, w1 = 0, w2 = 0, qOffset = 0, k1Offset = 0, k2Offset = 0 } = options;
  const [B, T, H, D] = q.shape as [number, number, number, number];
  const out = zeros([B, T, H, v1.shape[3]!], { dtype });
  const lse = zeros([B, H, T], { dtype });
  engine().op.simplicialAttention(
    q.handle,
    k1.handle,
    k2.handle,
    v1.handle,
    v2.handle,
    scale ?? 1 / Math.sqrt(D),
    causal,
    w1,
    w2,
    0,
    0,
    qOffset,
    k1Offset,
    k2Offset,
    false,
    out.handle,
    lse.handle,
  );
  return { out, lse: lse.dataSync(), lseTensor: lse };
}

const same = (a: Tensor, b: Tensor, label?: string) => expectClose(a.dataSync(), b.dataSync(), tolerance, label);
const inScope = (fn: () => void) => () => scope(fn);

describe("simplicialAttention", () => {
  it(
    "is v1 ∘ v2 for one position, with zero gradients of queries and keys",
    inScope(() => {
      const inputs = inputsOf({ N: 1, H: 2, K: 2, D: 4 });
      const expected = inputs[3].mul(inputs[4]);
      same(run(inputs, {}), expected);
      const [dq, dk1, dk2] = gradientsOf(inputs, {}, sample([2, 1, 2, 4], 5));
      // do · (v1 ∘ v2) and do · o are sums over 4 channels of products up to 4; their difference is multiplied by up to 2 · 2 / √4.
      const rounding = 2 * 4 * 4 * sumError(4, dtype);
      for (const d of [dq, dk1, dk2]) expect(largest(d.dataSync())).toBeLessThanOrEqual(rounding);
    }),
  );

  it(
    "is v1 ∘ v2 at every position when both windows are 1, with zero gradients of queries and keys",
    inScope(() => {
      const inputs = inputsOf({ N: 70, H: 2, K: 1, D: 4 });
      const options = { w1: 1, w2: 1 };
      const values = inputs[3].mul(inputs[4]);
      same(run(inputs, options), concat([values, values], 2));
      const [dq, dk1, dk2] = gradientsOf(inputs, options, sample([2, 70, 2, 4], 5));
      const rounding = 2 * 4 * 4 * sumError(4, dtype);
      for (const d of [dq, dk1, dk2]) expect(largest(d.dataSync())).toBeLessThanOrEqual(2 * rounding);
    }),
  );

  it(
    "is ordinary attention of one virtual head for each offset in the short window, merged by their log-sum-exps",
    inScope(() => {
      const [N, w1, w2] = [21, 6, 4];
      const inputs = inputsOf({ N, H: 2, K: 1, D: 5 });
      const [q, k1, k2, v1, v2] = inputs;
      // The head of offset δ meets row t − δ of (k2, v2) at position t: they are moved on by δ, in a window of 1.
      const parts = Array.from({ length: w2 }, (_, offset) => {
        const moved = (x: Tensor) => x.slice(1, 0, N - offset);
        const options = { w1, w2: 1, qOffset: offset, k2Offset: offset };
        const { out, lseTensor } = withLse([q.slice(1, offset), k1, moved(k2), v1, moved(v2)], options);
        // Queries before δ have no such row: exp(−∞) = 0.
        const absent = (shape: number[], value: number) => ones(shape, { dtype }).mul(value);
        return {
          out: concat([zeros([2, offset, 2, 5], { dtype }), out], 1),
          lse: concat([absent([2, 2, offset], Number.NEGATIVE_INFINITY), lseTensor], 2),
        };
      });
      const sum = (xs: Tensor[]) => xs.reduce((x, y) => x.add(y));
      const lse = sum(parts.map((part) => part.lse.exp())).log();
      const weights = parts.map((part) => part.lse.sub(lse).exp().transpose(1, 2).reshape([2, N, 2, 1]));
      const whole = withLse(inputs, { w1, w2 });
      same(lse, whole.lseTensor, "lse");
      same(sum(parts.map(({ out }, i) => out.mul(weights[i]!))), whole.out, "o");
    }),
  );

  it.each([1, 2, 5, 40])("equals sliding-window attention when k2 and v2 are ones, for w2 = %i", (w2) => {
    scope(() => {
      const [q, k1, k2, v1, v2] = inputsOf({ N: 37, H: 4, K: 2, D: 8 });
      const [one, oneV] = [ones(k2.shape, { dtype }), ones(v2.shape, { dtype })];
      const expected = attention(q, k1, v1, { window: 6 });
      same(run([q, k1, one, v1, oneV], { w1: 6, w2 }), expected);
      same(run([q, one, k1, oneV, v1], { w1: w2, w2: 6 }), expected, "the other side");
      // Each pair (j, k) has the logit of j: lse grows by ln of the number of k.
      const plain = withLse([q, k1, one, v1, oneV], { w1: 6, w2: 1 }).lse;
      const many = withLse([q, k1, one, v1, oneV], { w1: 6, w2 }).lse;
      expectClose(
        many,
        plain.map((x, i) => x + Math.log(Math.min(w2, (i % 37) + 1))),
        tolerance,
        "lse",
      );
    });
  });

  it(
    "uses q · (k1 ∘ k2[i]) and v1 ∘ v2[i] when w2 is 1",
    inScope(() => {
      const N = 9;
      const [q, k1, k2, v1, v2] = inputsOf({ N, H: 1, K: 1, D: 4 }, 3, 1);
      const actual = run([q, k1, k2, v1, v2], { w1: 5, w2: 1 });
      const rows = Array.from({ length: N }, (_, i) => {
        const start = Math.max(0, i - 4);
        const at = (x: Tensor) => x.slice(1, i, i + 1);
        const until = (x: Tensor) => x.slice(1, start, i + 1);
        return attention(at(q).mul(at(k2)), until(k1), until(v1)).mul(at(v2));
      });
      same(actual, concat(rows, 1));
    }),
  );

  it(
    "is symmetric in its two sides, the determinant up to the sign of q",
    inScope(() => {
      const [q, k1, k2, v1, v2] = inputsOf({ N: 19, H: 4, K: 2, D: 7 });
      same(run([q, k1, k2, v1, v2], { w1: 7, w2: 3 }), run([q, k2, k1, v2, v1], { w1: 3, w2: 7 }));
      // The 7th channel is the rest of 7 / 3 and keeps its sign.
      const flipped = q.mul(tensor([-1, -1, -1, -1, -1, -1, 1], { dtype }));
      const form = "determinant";
      same(run([q, k1, k2, v1, v2], { w1: 7, w2: 3, form }), run([flipped, k2, k1, v2, v1], { w1: 3, w2: 7, form }));
    }),
  );

  it(
    "is the product of window means when q is zero",
    inScope(() => {
      const N = 11;
      const [q, k1, k2, v1, v2] = inputsOf({ N, H: 2, K: 2, D: 4 });
      const mean = (v: Tensor, w: number) =>
        concat(
          Array.from({ length: N }, (_, i) =>
            v.slice(1, Math.max(0, i - w + 1), i + 1).mean({ axis: 1, keepDims: true }),
          ),
          1,
        );
      same(run([q.mul(0), k1, k2, v1, v2], { w1: 4, w2: 3 }), mean(v1, 4).mul(mean(v2, 3)));
      const { lse } = withLse([q.mul(0), k1, k2, v1, v2], { w1: 4, w2: 3 });
      expectClose(
        lse,
        lse.map((_, i) => Math.log(Math.min(4, (i % N) + 1) * Math.min(3, (i % N) + 1))),
        tolerance,
        "lse",
      );
    }),
  );

  it(
    "doesn't change when channels are rescaled between its factors",
    inScope(() => {
      const [q, k1, k2, v1, v2] = inputsOf({ N: 13, H: 2, K: 1, D: 8 });
      const options = { w1: 6, w2: 4 };
      const expected = run([q, k1, k2, v1, v2], options);
      const c = sample([8], 9, { low: 0.5, high: 2 }).mul(tensor([1, -1, 1, 1, -1, 1, -1, 1], { dtype }));
      same(run([q.div(c), k1.mul(c), k2, v1, v2], options), expected, "q and k1");
      same(run([q, k1.mul(c), k2.div(c), v1, v2], options), expected, "k1 and k2");
      same(run([q, k1, k2, v1.mul(c), v2.div(c)], options), expected, "v1 and v2");
    }),
  );

  it(
    "has a determinant form that common rotations don't change",
    inScope(() => {
      const [q, k1, k2, v1, v2] = inputsOf({ N: 8, H: 2, K: 1, D: 6 });
      const [a, b] = [0.7, -1.9];
      // A rotation of each 3-chunk about z, then about x.
      const z = [
        [Math.cos(a), -Math.sin(a), 0],
        [Math.sin(a), Math.cos(a), 0],
        [0, 0, 1],
      ];
      const x = [
        [1, 0, 0],
        [0, Math.cos(b), -Math.sin(b)],
        [0, Math.sin(b), Math.cos(b)],
      ];
      const rotation = tensor(z, { dtype }).matmul(tensor(x, { dtype }));
      const turn = (y: Tensor) =>
        y
          .reshape([...y.shape.slice(0, 3), 2, 3])
          .matmul(rotation)
          .reshape(y.shape);
      const form = "determinant";
      same(run([turn(q), turn(k1), turn(k2), v1, v2], { form }), run([q, k1, k2, v1, v2], { form }));
      // Parallel keys span no volume: all logits are 0 as with q = 0.
      same(
        run([q, k1, k1.mul(0).add(k1.slice(1, 0, 1)), v1, v2], { w1: 1, w2: 1, form }),
        run([q.mul(0), k1, k1, v1, v2], { w1: 1, w2: 1, form }),
      );
    }),
  );

  it.each([1, -1, 1e3, -1e3])("doesn't change when all logits of a row move by %d", (t) => {
    scope(() => {
      const [q, k1, k2, v1, v2] = inputsOf({ N: 9, H: 2, K: 1, D: 4 });
      const scale = 0.5;
      const wide = (y: Tensor, value: number) =>
        concat([y, ones([...y.shape.slice(0, 3), 1], { dtype }).mul(value)], 3);
      const options = { w1: 5, w2: 3, scale };
      const before = withLse([q, k1, k2, v1, v2], options);
      const after = withLse([wide(q, t), wide(k1, 1), wide(k2, 1), v1, v2], options);
      const moved = { atol: (1 + Math.abs(scale * t)) * tolerance.atol, rtol: tolerance.rtol };
      expectClose(after.out.dataSync(), before.out.dataSync(), moved, "o");
      expectClose(
        after.lse,
        before.lse.map((x) => x + scale * t),
        moved,
        "lse",
      );
    });
  });

  it(
    "has no windows when they are as long as the sequence",
    inScope(() => {
      const inputs = inputsOf({ N: 21, H: 2, K: 1, D: 4 });
      const expected = run(inputs, {});
      for (const w of [21, 22, 1000]) same(run(inputs, { w1: w, w2: w }), expected, `w = ${w}`);
    }),
  );

  it(
    "is causal and local: a position touches only outputs from itself on to the end of the longer window",
    inScope(() => {
      const N = 17;
      const [w1, w2, p] = [5, 3, 6];
      const inputs = inputsOf({ N, H: 2, K: 1, D: 4 }, 4, 1);
      const before = run(inputs, { w1, w2 }).dataSync();
      for (const changed of [1, 2, 3, 4]) {
        const bump = tensor(
          Float64Array.from({ length: N }, (_, i) => (i === p ? 3 : 0)),
          { shape: [1, N, 1, 1] },
        );
        const after = run(
          inputs.map((x, i) => (i === changed ? x.add(bump) : x)),
          { w1, w2 },
        ).dataSync();
        const perRow = before.length / N;
        for (let i = 0; i < N; i++) {
          const rows = [before, after].map((o) => o.slice(i * perRow, (i + 1) * perRow));
          const window = changed % 2 === 1 ? w1 : w2;
          if (i < p || i >= p + window) expectSameBits(rows[1]!, rows[0]!, `row ${i} for input ${changed}`);
          else expect(rows[1], `row ${i} sees position ${p} of input ${changed}`).not.toEqual(rows[0]);
        }
      }
    }),
  );

  it(
    "with grouped queries equals repeated keys and values, and adds up their gradients",
    inScope(() => {
      const inputs = inputsOf({ N: 11, H: 6, K: 2, D: 4 });
      const [q, ...kv] = inputs;
      const repeat = (x: Tensor) => x.reshape([2, 11, 2, 1, 4]).expand([2, 11, 2, 3, 4]).reshape([2, 11, 6, 4]);
      const options = { w1: 5, w2: 4 };
      const repeated = [q, ...kv.map(repeat)] as Inputs;
      same(run(repeated, options), run(inputs, options));
      const dout = sample([2, 11, 6, 4], 77);
      const grouped = gradientsOf(inputs, options, dout);
      const separate = gradientsOf(repeated, options, dout);
      same(separate[0], grouped[0], "dq");
      for (let i = 1; i < 5; i++)
        same(separate[i]!.reshape([2, 11, 2, 3, 4]).sum({ axis: 3 }), grouped[i]!, `gradient ${i}`);
    }),
  );

  it(
    "has gradients that obey the gauge identities per channel",
    inScope(() => {
      const inputs = inputsOf({ N: 23, H: 2, K: 2, D: 4 });
      const options = { w1: 9, w2: 6 };
      const dout = sample([2, 23, 2, 4], 31);
      const grads = gradientsOf(inputs, options, dout);
      const perChannel = (x: Tensor, y: Tensor) => x.mul(y).sum({ axis: [0, 1] });
      const [q, k1, k2, v1, v2] = inputs.map((x, i) => perChannel(x, grads[i]!)) as Inputs;
      same(k1, q, "Σ dk1∘k1 = Σ dq∘q");
      same(k2, q, "Σ dk2∘k2 = Σ dq∘q");
      const o = perChannel(run(inputs, options), dout);
      same(v1, o, "Σ dv1∘v1 = Σ do∘o");
      same(v2, o, "Σ dv2∘v2 = Σ do∘o");
      const det = gradientsOf(inputs, { ...options, form: "determinant" }, dout);
      const total = (i: number) => inputs[i]!.mul(det[i]!).sum();
      same(total(1), total(0), "determinant: k1");
      same(total(2), total(0), "determinant: k2");
    }),
  );

  /** The operator a chunk of queries at a time, each with the rows that its windows reach. */
  function inChunks([q, k1, k2, v1, v2]: Inputs, cuts: number[], [w1, w2]: [number, number]): Tensor {
    const parts = cuts.slice(1).map((end, c) => {
      const start = cuts[c]!;
      const [k1Offset, k2Offset] = [Math.max(0, start - w1 + 1), Math.max(0, start - w2 + 1)];
      const long = (x: Tensor) => x.slice(1, k1Offset, end);
      const short = (x: Tensor) => x.slice(1, k2Offset, end);
      const options = { w1, w2, qOffset: start, k1Offset, k2Offset };
      return run([q.slice(1, start, end), long(k1), short(k2), long(v1), short(v2)], options);
    });
    return concat(parts, 1);
  }

  it(
    "has the gradients of the whole in chunks, whose shares of shared rows add up",
    inScope(() => {
      const [w1, w2] = [7, 4];
      const inputs = inputsOf({ N: 29, H: 4, K: 2, D: 4 });
      const dout = sample([2, 29, 4, 4], 12);
      const { grads } = valueAndGrad((xs: Inputs) => inChunks(xs, [0, 5, 6, 20, 29], [w1, w2]).mul(dout).sum(), inputs);
      const expected = gradientsOf(inputs, { w1, w2 }, dout);
      for (const [i, d] of grads.entries()) same(d, expected[i]!, `gradient ${i}`);
    }),
  );

  it(
    "gives the same in one pass, in chunks, and token by token from rings",
    inScope(() => {
      const [N, w1, w2] = [29, 7, 4];
      const inputs = inputsOf({ N, H: 4, K: 2, D: 4 });
      const [q, k1, k2, v1, v2] = inputs;
      const whole = run(inputs, { w1, w2 });
      same(inChunks(inputs, [0, 5, 6, 20, N], [w1, w2]), whole, "chunks");
      // Slot i mod w holds position i: the order within a ring doesn't matter, and nothing in it is masked.
      const ring = (x: Tensor, w: number, i: number) => {
        const slots = Array.from({ length: Math.min(w, i + 1) }, (_, slot) => i - ((((i - slot) % w) + w) % w));
        return concat(
          slots.map((position) => x.slice(1, position, position + 1)),
          1,
        );
      };
      const tokens = Array.from({ length: N }, (_, i) =>
        run([q.slice(1, i, i + 1), ring(k1, w1, i), ring(k2, w2, i), ring(v1, w1, i), ring(v2, w2, i)], {
          causal: false,
        }),
      );
      same(concat(tokens, 1), whole, "rings");
    }),
  );

  it.each([
    ["of the first side", [0, 4, 13], [0, 13]],
    ["of the second side", [0, 13], [0, 1, 13]],
    ["of both sides", [0, 5, 6, 13], [0, 7, 13]],
  ])("merges the results of parts %s by their log-sum-exps", (_which, cuts1, cuts2) => {
    scope(() => {
      const [q, k1, k2, v1, v2] = inputsOf({ N: 13, H: 4, K: 2, D: 5 });
      const ranges = (cuts: number[]) => cuts.slice(1).map((end, i) => [cuts[i]!, end] as const);
      const parts = ranges(cuts1).flatMap(([a, b]) =>
        ranges(cuts2).map(([c, d]) =>
          withLse([q, k1.slice(1, a, b), k2.slice(1, c, d), v1.slice(1, a, b), v2.slice(1, c, d)], { causal: false }),
        ),
      );
      const sum = (xs: Tensor[]) => xs.reduce((x, y) => x.add(y));
      const lse = sum(parts.map((part) => part.lseTensor.exp())).log();
      // [B, H, T] to [B, T, H, 1]
      const weights = parts.map((part) => part.lseTensor.sub(lse).exp().transpose(1, 2).reshape([2, 13, 4, 1]));
      const whole = withLse([q, k1, k2, v1, v2], { causal: false });
      same(lse, whole.lseTensor, "lse");
      same(sum(parts.map(({ out }, i) => out.mul(weights[i]!))), whole.out, "o");
    });
  });

  it(
    "has a determinant form that sees only distances when q, k1 and k2 are turned by their positions",
    inScope(() => {
      // The first two channels of each chunk of three turn by position · 10000^(−c/p); the third, and the 7th of 7 channels, stay.
      const [N, p] = [9, 2];
      const [q, k1, k2, v1, v2] = inputsOf({ N, H: 2, K: 1, D: 7 });
      const turn = (x: Tensor, offset: number) => {
        const heads = x.shape[2]!;
        const angles = tensor(
          Float64Array.from({ length: N * p }, (_, i) => (offset + Math.floor(i / p)) * 10_000 ** (-(i % p) / p)),
          { shape: [N, 1, p, 1] },
        );
        const [c0, s0] = [cos(angles), sin(angles)];
        const chunks = x.slice(3, 0, 3 * p).reshape([2, N, heads, p, 3]);
        const [a, b, c] = [0, 1, 2].map((i) => chunks.slice(4, i, i + 1)) as [Tensor, Tensor, Tensor];
        const turned = concat([a.mul(c0).sub(b.mul(s0)), a.mul(s0).add(b.mul(c0)), c], 4);
        return concat([turned.reshape([2, N, heads, 3 * p]), x.slice(3, 3 * p)], 3);
      };
      const at = (offset: number, form: "determinant" | "trilinear") =>
        run([turn(q, offset), turn(k1, offset), turn(k2, offset), v1, v2], { w1: 6, w2: 4, form });
      const apart = (x: Tensor, y: Tensor) => largest(x.sub(y).dataSync());
      for (const offset of [1, 17, 1000]) {
        // An angle of about a thousand is itself rounded to a thousandfold of u.
        const rounding = tolerance.atol + offset * error;
        expect(apart(at(offset, "determinant"), at(0, "determinant")), `offset ${offset}`).toBeLessThan(rounding);
      }
      // The rotation does something, and the trilinear form isn't relative under it.
      expect(
        apart(at(0, "determinant"), run([q, k1, k2, v1, v2], { w1: 6, w2: 4, form: "determinant" })),
      ).toBeGreaterThan(0.01);
      expect(apart(at(17, "trilinear"), at(0, "trilinear"))).toBeGreaterThan(0.01);
    }),
  );

  it("finds triples of numbers whose sum is a multiple of 7 (Match3, theorem 5.1 of the paper)", () => {
    const [M, c] = [7, 60];
    fc.assert(
      fc.property(fc.array(fc.nat(M - 1), { minLength: 1, maxLength: 9 }), (numbers) =>
        scope(() => {
          const rows = (row: (x: number, y: number) => number[], blank: number[]) => {
            const all = numbers.map((x) => row(Math.cos((2 * Math.PI * x) / M), Math.sin((2 * Math.PI * x) / M)));
            return tensor([...all, blank], { dtype }).reshape([1, numbers.length + 1, 1, blank.length]);
          };
          const e7 = [0, 0, 0, 0, 0, 0, 1];
          const q = rows((x, y) => [x, y, 0, -y, x, 0, 1].map((z) => c * z), e7);
          const k1 = rows((x, y) => [y, x, 0, -y, -x, 0, 0], e7);
          const k2 = rows((x, y) => [0, 0, x, 0, 0, -y, 0], e7);
          const v = rows(() => [1], [0]);
          const out = run([q, k1, k2, v, v], { form: "determinant", scale: 1, causal: false }).dataSync();
          // Pairs without a match have logits of at most c·cos(2π/7), those with one and the blank pair have c.
          const others = (numbers.length + 1) ** 2 * Math.exp(c * (Math.cos((2 * Math.PI) / M) - 1));
          for (const [i, x] of numbers.entries()) {
            const pairs = numbers.flatMap((y) => numbers.map((z) => (x + y + z) % M));
            const matches = pairs.filter((rest) => rest === 0).length;
            expect(Math.abs(out[i]! - matches / (matches + 1)), `${x} in ${numbers}`).toBeLessThan(others + c * error);
            expect(out[i]! >= 0.5 - others - c * error).toBe(matches > 0);
          }
        }),
      ),
      { numRuns: 50 },
    );
  });

  it(
    "permutes its outputs with the heads of a group, and nothing else",
    inScope(() => {
      const [q, ...kv] = inputsOf({ N: 9, H: 4, K: 1, D: 4 });
      const reorder = (x: Tensor) =>
        concat(
          [2, 0, 3, 1].map((h) => x.slice(2, h, h + 1)),
          2,
        );
      same(run([reorder(q), ...kv], { w1: 5, w2: 2 }), reorder(run([q, ...kv], { w1: 5, w2: 2 })));
    }),
  );

  it("treats every sequence of a batch alone, for any sizes", () => {
    fc.assert(
      fc.property(
        fc.record({
          N: fc.integer({ min: 1, max: 40 }),
          K: fc.integer({ min: 1, max: 2 }),
          g: fc.integer({ min: 1, max: 3 }),
          D: fc.integer({ min: 1, max: 9 }),
          Dv: fc.integer({ min: 1, max: 9 }),
          w1: fc.integer({ min: 1, max: 45 }),
          w2: fc.integer({ min: 1, max: 45 }),
        }),
        ({ N, K, g, D, Dv, w1, w2 }) =>
          scope(() => {
            const inputs = inputsOf({ N, H: K * g, K, D, Dv }, N + D);
            const whole = run(inputs, { w1, w2 });
            for (const b of [0, 1])
              same(
                run(
                  inputs.map((x) => x.slice(0, b, b + 1)),
                  { w1, w2 },
                ),
                whole.slice(0, b, b + 1),
              );
          }),
      ),
      { numRuns: 40 },
    );
  });
});
