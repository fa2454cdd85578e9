import {
  concat,
  full,
  grad,
  linear,
  logSoftmax,
  memory,
  mul,
  NonFiniteError,
  OptionError,
  randomNormal,
  randomUniform,
  resetPeakMemory,
  ShapeError,
  scope,
  slice,
  softmax,
  sync,
  type Tensor,
  tanh,
  tensor,
  topK,
  valueAndGrad,
} from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import {
  type DistillationLossOptions,
  distillationLoss,
  distillationParts,
  linearDistillationParts,
} from "./distillation-loss.js";
import type { Divergence } from "./divergences.js";
import type { SparseMode } from "./sparse.js";
import type { DistillTarget } from "./targets.js";

const [N, V, C] = [7, 11, 5];
const normal = (stream: number, shape: number[], dtype: "float32" | "float64" = "float64") =>
  randomNormal({ seed: 3, stream }, shape, { dtype });
const labels = () => tensor(Int32Array.of(3, 0, -100, 10, 5, -100, 1));
const student = (dtype?: "float32" | "float64") => normal(1, [N, V], dtype).mul(1.5);
const teacher = (dtype?: "float32" | "float64") => normal(2, [N, V], dtype).mul(2);

const divergences: Divergence[] = [
  { kind: "softCrossEntropy" },
  { kind: "forwardKl" },
  { kind: "reverseKl" },
  { kind: "jsd" },
  { kind: "jsd", beta: 0.1 },
  { kind: "jsd", beta: 0 },
  { kind: "jsd", beta: 1 },
  { kind: "skewedKl" },
  { kind: "skewedKl", alpha: 0 },
  { kind: "totalVariation" },
  { kind: "logitMse" },
];

const sparseModes: SparseMode[] = ["renorm", "naive", "tail", "restrict", "sampled"];

function topTarget(k: number): DistillTarget {
  const { values, indices } = topK(logSoftmax(teacher()), k);
  return { ids: indices, logProbs: values };
}

interface Case {
  name: string;
  target: () => DistillTarget;
  options: DistillationLossOptions;
}

const dense: Case[] = divergences.map((divergence) => ({
  name: JSON.stringify(divergence),
  target: () => ({ logits: teacher() }),
  options: { divergence },
}));
const sparse: Case[] = sparseModes.map((mode) => ({
  name: mode,
  target: () =>
    mode === "sampled"
      ? {
          ids: tensor(
            Int32Array.from({ length: 4 * N }, (_, i) => (i * i) % V),
            { shape: [N, 4] },
          ),
        }
      : topTarget(4),
  options: { mode },
}));
const tempered: Case[] = [
  ...dense.map(({ options, ...one }) => ({ ...one, options: { ...options, tauStudent: 2, tauTeacher: 0.7 } })),
  ...sparse
    .filter(({ name }) => name === "renorm" || name === "restrict")
    .map(({ options, ...one }) => ({ ...one, options: { ...options, tauStudent: 0.8, tauTeacher: 0.25 } })),
].map((one) => ({ ...one, name: `${one.name} at other temperatures` }));
const cases = [
  ...dense,
  ...sparse,
  ...tempered,
  {
    name: "two teachers and labels",
    target: () => ({ teachers: [{ logits: teacher() }, { logits: normal(5, [N, V]) }] }),
    options: { ceWeight: 0.3, kdWeight: 0.7 },
  },
  {
    name: "one temperature squared",
    target: () => ({ logits: teacher() }),
    options: { divergence: { kind: "forwardKl" } as const, tauStudent: 3, tauTeacher: 3, temperatureSquared: true },
  },
];

/** Central differences with h and h/2, extrapolated: the error is of fourth order in h. */
function slopeOf(f: (step: number) => number): number {
  const h = 1e-3;
  const slope = (step: number) => (f(step) - f(-step)) / (2 * step);
  return (4 * slope(h / 2) - slope(h)) / 3;
}

const largest = (x: Tensor) => Math.max(...Array.from(x.dataSync(), Math.abs));
const difference = (a: Tensor, b: Tensor) => largest(a.sub(b));

describe("distillationLoss", () => {
  it.each(cases)("has the gradient of its value: $name", ({ target, options }) => {
    scope(() => {
      const given = { labels: labels(), ...options };
      const at = target();
      const logits = student();
      const gradient = grad((x: Tensor) => distillationLoss(x, at, given), logits);
      for (let k = 0; k < 4; k++) {
        const direction = normal(20 + k, [N, V]);
        const wanted = slopeOf((step) => distillationLoss(logits.add(direction.mul(step)), at, given).itemSync());
        const got = gradient.mul(direction).sum().itemSync();
        expect(Math.abs(got - wanted)).toBeLessThan(1e-6 * (1 + Math.abs(wanted)));
      }
    });
  });

  it.each(cases)("is the same in blocks: $name", ({ target, options }) => {
    scope(() => {
      const given = { labels: labels(), ...options };
      const run = (blockElements: number) =>
        valueAndGrad((x: Tensor) => distillationLoss(x, target(), { ...given, blockElements }), student());
      const whole = run(2 ** 24);
      for (const rows of [1, 2, 3]) {
        const blocks = run(rows * V);
        expect(difference(blocks.value, whole.value)).toBeLessThan(1e-14 * (1 + largest(whole.value)));
        expect(difference(blocks.grads, whole.grads)).toBeLessThan(1e-15);
      }
    });
  });

  it.each(cases)("doesn't see constants added to the logits: $name", ({ target, options }) => {
    scope(() => {
      const given = { labels: labels(), ...options };
      const before = distillationLoss(student(), target(), given).itemSync();
      expect(distillationLoss(student().add(17), target(), given).itemSync()).toBeCloseTo(before, 11);
      const at = target();
      if (!("logits" in at)) return;
      expect(distillationLoss(student(), { logits: at.logits.add(-17) }, given).itemSync()).toBeCloseTo(before, 11);
    });
  });

  it.each(divergences.filter(({ kind }) => kind !== "softCrossEntropy"))(
    "is 0 without a slope for equals: %j",
    (divergence) => {
      scope(() => {
        const { value, grads } = valueAndGrad(
          (x: Tensor) => distillationLoss(x, { logits: student() }, { divergence }),
          student(),
        );
        expect(Math.abs(value.itemSync())).toBeLessThan(1e-14);
        expect(largest(grads)).toBeLessThan(1e-14);
      });
    },
  );

  it("has the forward KL's gradient as soft cross-entropy, and its value beside the teacher's entropy", () => {
    scope(() => {
      const of = (kind: "forwardKl" | "softCrossEntropy") =>
        valueAndGrad((x: Tensor) => distillationLoss(x, { logits: teacher() }, { divergence: { kind } }), student());
      const [kl, soft] = [of("forwardKl"), of("softCrossEntropy")];
      expect(difference(kl.grads, soft.grads)).toBeLessThan(1e-15);
      const p = softmax(teacher());
      const entropy = p.mul(p.log()).sum().itemSync() / -N;
      expect(soft.value.itemSync() - kl.value.itemSync()).toBeCloseTo(entropy, 12);
    });
  });

  it("keeps the Jensen–Shannon divergence symmetric and below log 2, and near the KLs at its ends", () => {
    scope(() => {
      const jsd = (p: Tensor, q: Tensor, beta: number) =>
        distillationLoss(q, { logits: p }, { divergence: { kind: "jsd", beta } }).itemSync();
      expect(jsd(teacher(), student(), 0.5)).toBeCloseTo(jsd(student(), teacher(), 0.5), 14);
      expect(jsd(teacher().mul(100), student().mul(100), 0.5)).toBeLessThanOrEqual(Math.LN2);
      expect(jsd(teacher(), student(), 1e-7) / 1e-7).toBeCloseTo(jsd(teacher(), student(), 0), 4);
      expect(jsd(teacher(), student(), 1 - 1e-7) / 1e-7).toBeCloseTo(jsd(teacher(), student(), 1), 4);
    });
  });

  it("is the dense loss with all tokens of the teacher", () => {
    scope(() => {
      const run = (target: DistillTarget, options: DistillationLossOptions) =>
        valueAndGrad((x: Tensor) => distillationLoss(x, target, options), student());
      const exact = run({ logits: teacher() }, {});
      for (const mode of ["renorm", "naive", "tail", "restrict"] as const) {
        const all = run(topTarget(V), { mode });
        expect(difference(all.value, exact.value)).toBeLessThan(1e-13);
        expect(difference(all.grads, exact.grads)).toBeLessThan(1e-14);
      }
      const sharp = run(topTarget(V), { mode: "renorm", tauTeacher: 0.25 });
      expect(difference(sharp.grads, run({ logits: teacher() }, { tauTeacher: 0.25 }).grads)).toBeLessThan(1e-14);
    });
  });

  it("is unbiased for drawn tokens: over all single draws it is the dense loss", () => {
    scope(() => {
      const p = softmax(teacher());
      let loss = 0;
      let gradient = student().mul(0);
      const column = (v: number) => p.slice(1, v, v + 1);
      for (let v = 0; v < V; v++) {
        const target = { ids: tensor(new Int32Array(N).fill(v), { shape: [N, 1] }) };
        // The row of each draw by its probability: with one row at a time, the mean over rows doesn't mix them.
        for (let n = 0; n < N; n++) {
          const mask = tensor(Int32Array.from({ length: N }, (_, i) => (i === n ? 1 : 0))).astype("bool");
          const one = valueAndGrad((x: Tensor) => distillationLoss(x, target, { mode: "sampled", mask }), student());
          const probability = column(v).dataSync()[n]!;
          loss += (probability * one.value.itemSync()) / N;
          gradient = gradient.add(one.grads.mul(probability / N));
        }
      }
      const exact = valueAndGrad((x: Tensor) => distillationLoss(x, { logits: teacher() }), student());
      expect(loss).toBeCloseTo(exact.value.itemSync(), 12);
      expect(difference(gradient, exact.grads)).toBeLessThan(1e-14);
    });
  });

  it("uses the tail mass that a cache has, and drops the term where there is none", () => {
    scope(() => {
      const { values, indices } = topK(logSoftmax(teacher()), 4);
      const left = values.exp().sum({ axis: 1 }).neg().add(1).log();
      const options = { mode: "tail" } as const;
      const given = distillationLoss(student(), { ids: indices, logProbs: values, tailLogProb: left }, options);
      expect(given.itemSync()).toBeCloseTo(distillationLoss(student(), topTarget(4), options).itemSync(), 12);
      const none = tensor(new Float64Array(N).fill(Number.NEGATIVE_INFINITY));
      const dropped = distillationLoss(student(), { ids: indices, logProbs: values, tailLogProb: none }, options);
      expect(dropped.itemSync()).toBeCloseTo(
        distillationLoss(student(), topTarget(4), { mode: "naive" }).itemSync(),
        12,
      );
    });
  });

  it.each(["float32", "float64"] as const)("stays finite at logits of ±10⁴ in %s", (dtype) => {
    scope(() => {
      const extreme = (stream: number) => randomUniform({ seed: 3, stream }, [N, V], { dtype }).mul(2e4).sub(1e4);
      for (const divergence of divergences) {
        const { value, grads } = valueAndGrad(
          (x: Tensor) => distillationLoss(x, { logits: extreme(8) }, { divergence, labels: labels(), ceWeight: 0.5 }),
          extreme(9),
        );
        expect([divergence.kind, Number.isFinite(value.itemSync())]).toEqual([divergence.kind, true]);
        expect(grads.dataSync().every(Number.isFinite)).toBe(true);
      }
    });
  });

  it("takes tokens that the teacher excludes as probability 0, labels among them", () => {
    scope(() => {
      const excluded = Float64Array.from(teacher().dataSync());
      for (let n = 0; n < N; n++) for (const v of [0, 3]) excluded[n * V + v] = Number.NEGATIVE_INFINITY;
      const target = { logits: tensor(excluded, { shape: [N, V] }) };
      const allowed = divergences.filter(
        ({ kind, ...rest }) => kind !== "reverseKl" && kind !== "logitMse" && (rest as { beta?: number }).beta !== 1,
      );
      for (const divergence of allowed) {
        const options = { divergence, labels: labels(), ceWeight: 0.5, kdWeight: 0.5 };
        const { value, grads } = valueAndGrad((x: Tensor) => distillationLoss(x, target, options), student());
        expect([divergence.kind, Number.isFinite(value.itemSync())]).toEqual([divergence.kind, true]);
        expect(grads.dataSync().every(Number.isFinite)).toBe(true);
      }
    });
  });

  describe("refuses a divergence that the teacher's excluded tokens make infinite", () => {
    const without = (x: Tensor, rows: readonly number[]) => {
      const values = Float64Array.from(x.dataSync());
      for (const n of rows) for (const v of [2, 6]) values[n * V + v] = Number.NEGATIVE_INFINITY;
      return tensor(values, { shape: [N, V] });
    };
    const infinite = divergences.filter(
      ({ kind, ...rest }) => kind === "reverseKl" || kind === "logitMse" || (rest as { beta?: number }).beta === 1,
    );

    it.each(infinite)("%j, in blocks too", (divergence) => {
      scope(() => {
        const target = { logits: without(teacher(), [0, 4]) };
        const { message } = captured(() => distillationLoss(student(), target, { divergence }));
        expect(message).toBe(
          `[distillationLoss] ${divergence.kind} is infinite: the teacher excludes 4 tokens (log-probability −∞) that the student doesn't, in the rows that count. Take forwardKl, jsd with beta below 1, skewedKl or softCrossEntropy.`,
        );
        const linear = () =>
          linearDistillationParts(normal(11, [N, C]), normal(12, [V, C]), target, { divergence, blockElements: 2 * V });
        expect(captured(linear).message).toContain("[linearDistillationLoss]");
      });
    });

    it.each(infinite)("%j, but not of rows that don't count", (divergence) => {
      scope(() => {
        const options = { divergence, labels: labels() };
        const loss = (rows: readonly number[]) =>
          distillationLoss(student(), { logits: without(teacher(), rows) }, options).itemSync();
        expect(loss([2, 5])).toBe(loss([]));
      });
    });

    it("reverse KL is the one over the tokens that are left where the student excludes the others too", () => {
      scope(() => {
        const rows = Array.from({ length: N }, (_, n) => n);
        const options = { divergence: { kind: "reverseKl" } } as const;
        const target = { logits: without(teacher(), rows) };
        const { value, grads } = valueAndGrad(
          (x: Tensor) => distillationLoss(x, target, options),
          without(student(), rows),
        );
        const left = (x: Tensor) => concat([x.slice(1, 0, 2), x.slice(1, 3, 6), x.slice(1, 7, V)], 1);
        const wanted = distillationLoss(left(student()), { logits: left(teacher()) }, options).itemSync();
        expect(value.itemSync()).toBeCloseTo(wanted, 13);
        expect(grads.dataSync().every(Number.isFinite)).toBe(true);
      });
    });

    it("takes tokens of a probability too small for the dtype, which are not excluded", () => {
      scope(() => {
        const far = { logits: student("float32").mul(1e4) };
        const loss = distillationLoss(student("float32"), far, { divergence: { kind: "reverseKl" } }).itemSync();
        expect(Number.isFinite(loss)).toBe(true);
      });
    });

    function captured(fn: () => unknown): Error {
      try {
        fn();
      } catch (error) {
        expect(error).toBeInstanceOf(NonFiniteError);
        return error as Error;
      }
      throw new Error("nothing was thrown");
    }
  });

  it("is 0 without a gradient if no row counts, whatever the rows hold", () => {
    scope(() => {
      const none = tensor(new Int32Array(N).fill(-100));
      const bad = student().mul(Number.NaN);
      const { value, grads } = valueAndGrad(
        (x: Tensor) => distillationLoss(x, { logits: teacher() }, { labels: none, ceWeight: 0.5 }),
        bad,
      );
      expect(value.itemSync()).toBe(0);
      expect(largest(grads)).toBe(0);
    });
  });

  it.each(divergences)("is no number where the teacher's scores are none: %o", (divergence) => {
    scope(() => {
      for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY]) {
        const logits = concat([full([1, V], wrong, { dtype: "float64" }), slice(teacher(), 0, 1, N)]);
        expect(distillationLoss(student(), { logits }, { divergence }).itemSync()).toBeNaN();
      }
    });
  });

  it.each(sparseModes)("is no number where a kept probability is none (%s)", (mode) => {
    scope(() => {
      const { ids, logProbs } = topTarget(4) as { ids: Tensor; logProbs: Tensor };
      const wrong = logProbs.add(
        tensor(
          Float64Array.from({ length: N }, (_, i) => (i === 2 ? Number.NaN : 0)),
          { shape: [N, 1] },
        ),
      );
      const all = tensor(new Int32Array(N).fill(1));
      if (mode !== "sampled")
        expect(distillationLoss(student(), { ids, logProbs: wrong }, { mode, labels: all }).itemSync()).toBeNaN();
    });
  });

  it("tells the parts of the loss", () => {
    scope(() => {
      const { loss, sums } = distillationParts(
        student(),
        { logits: teacher() },
        { labels: labels(), ceWeight: 0.4, kdWeight: 0.6 },
      );
      const [ce, kd, kl, entropy, agreement, count] = Array.from(sums.dataSync()) as [
        number,
        number,
        number,
        number,
        number,
        number,
      ];
      expect(count).toBe(5);
      expect(loss.itemSync()).toBeCloseTo((0.4 * ce + 0.6 * kd) / count, 12);
      expect(kl + entropy).toBeCloseTo(kd, 11);
      const named = (x: Tensor) => topK(x, 1).indices.dataSync();
      const [own, wanted] = [named(student()), named(teacher())];
      expect(agreement).toBe([0, 1, 3, 4, 6].filter((n) => own[n] === wanted[n]).length);
    });
  });

  it("averages the probabilities of several teachers, not their logits", () => {
    scope(() => {
      const [a, b] = [softmax(teacher()), softmax(normal(5, [N, V]))];
      const average = { logits: a.add(b).mul(0.5).log() };
      const both = { teachers: [{ logits: teacher() }, { logits: normal(5, [N, V]) }] };
      const wanted = distillationLoss(student(), average).itemSync();
      expect(distillationLoss(student(), both).itemSync()).toBeCloseTo(wanted, 13);
    });
  });

  it("never takes a row without a label for one of token 0, whatever the mask", () => {
    scope(() => {
      const all = tensor(new Int32Array(N).fill(1)).astype("bool");
      const some = tensor(Int32Array.of(1, 1, 1, 0, 1, 1, 1)).astype("bool");
      const parts = (given: DistillationLossOptions) => {
        const options = { ceWeight: 0.5, ...given };
        const { value, grads } = valueAndGrad(
          (x: Tensor) => distillationLoss(x, { logits: teacher() }, options),
          student(),
        );
        return [value.itemSync(), ...grads.dataSync()];
      };
      expect(parts({ labels: labels(), mask: all })).toEqual(parts({ labels: labels() }));
      const both = tensor(Int32Array.of(3, 0, -100, -100, 5, -100, 1));
      expect(parts({ labels: labels(), mask: some })).toEqual(parts({ labels: both }));
    });
  });

  it("pads a smaller teacher's vocabulary on request", () => {
    scope(() => {
      const small = { logits: teacher().slice(1, 0, 8) };
      expect(() => distillationLoss(student(), small)).toThrow(
        "[distillationLoss] the teacher's vocabulary has 8 tokens and the student's 11. Set vocabPad if the rest is padding of the same tokenizer.",
      );
      const excluded = Float64Array.from(teacher().dataSync(), (z, i) => (i % V < 8 ? z : Number.NEGATIVE_INFINITY));
      const wanted = distillationLoss(student(), { logits: tensor(excluded, { shape: [N, V] }) }).itemSync();
      expect(distillationLoss(student(), small, { vocabPad: true }).itemSync()).toBeCloseTo(wanted, 13);
      const reverse = { vocabPad: true, divergence: { kind: "reverseKl" } } as const;
      expect(() => distillationLoss(student(), small, reverse)).toThrow(
        "reverseKl is infinite where the teacher has probability 0",
      );
    });
  });

  it("refuses what doesn't fit, before anything is computed", () => {
    scope(() => {
      const target = { logits: teacher() };
      const refuse = (options: DistillationLossOptions, message: string, at: DistillTarget = target) => {
        expect(() => distillationLoss(student(), at, options)).toThrow(OptionError);
        expect(() => distillationLoss(student(), at, options)).toThrow(message);
      };
      refuse({ divergence: { kind: "kl" as never } }, "divergence.kind must be one of softCrossEntropy");
      refuse({ divergence: { kind: "jsd", beta: 2 } }, "divergence.beta must be in [0, 1]; received 2");
      refuse({ divergence: { kind: "skewedKl", alpha: 1 } }, "divergence.alpha must be in [0, 1); received 1");
      refuse({ tauTeacher: 0 }, "tauTeacher must be above 0; received 0");
      refuse({ tauTeacher: 2, temperatureSquared: true }, "temperatureSquared needs one temperature");
      refuse({ ceWeight: 0.5 }, "ceWeight needs labels");
      refuse({ mode: "tail", tauTeacher: 0.25 }, "has no teacher temperature but 1", topTarget(3));
      refuse({ mode: "top" as never }, "mode must be one of renorm", topTarget(3));
      refuse({ mode: "renorm" }, "needs the teacher's logProbs", { ids: tensor(new Int32Array(N), { shape: [N, 1] }) });
      refuse({}, "at least one teacher", { teachers: [] });
      refuse({ blockElements: 0 }, "blockElements must be at least 1");
      const short = { logits: teacher().slice(0, 0, 3) };
      expect(() => distillationLoss(student(), short)).toThrow("the teacher has 3 rows and the student 7");
      expect(() => distillationLoss(student(), target, { labels: tensor(Int32Array.of(1)) })).toThrow(ShapeError);
    });
  });
});

describe("linearDistillationParts", () => {
  const hidden = () => normal(11, [N, C]);
  const weight = () => normal(12, [V, C]);
  const teacherParts = () => ({ hidden: normal(13, [N, 4]), weight: normal(14, [V, 4]), softcap: 3 });

  it.each([0, 2])("is the loss of the logits that it never holds, softcap %d", (softcap) => {
    scope(() => {
      const options = { labels: labels(), ceWeight: 0.4, kdWeight: 0.6, tauTeacher: 0.5 };
      const cap = (z: Tensor, c: number) => (c > 0 ? mul(tanh(z.mul(1 / c)), c) : z);
      const { hidden: h, weight: w } = teacherParts();
      const plain = valueAndGrad(
        ([x, m]: readonly [Tensor, Tensor]) =>
          distillationLoss(cap(linear(x, m), softcap), { logits: cap(linear(h, w), 3) }, options),
        [hidden(), weight()] as const,
      );
      for (const blockElements of [2 ** 24, 2 * V]) {
        const blocks = valueAndGrad(
          ([x, m]: readonly [Tensor, Tensor]) =>
            linearDistillationParts(x, m, teacherParts(), { ...options, softcap, blockElements }).loss,
          [hidden(), weight()] as const,
        );
        expect(difference(blocks.value, plain.value)).toBeLessThan(1e-14);
        for (const i of [0, 1] as const) expect(difference(blocks.grads[i], plain.grads[i])).toBeLessThan(1e-14);
      }
    });
  });

  it("takes hidden states of batches, and gives one of two gradients alone", () => {
    scope(() => {
      const batched = hidden().reshape([1, N, C]);
      const target = { logits: teacher().reshape([1, N, V]) };
      const options = { labels: labels().reshape([1, N]), ceWeight: 0.5 };
      const [w, x] = [weight(), batched];
      const both = grad(([a, b]: readonly [Tensor, Tensor]) => linearDistillationParts(a, b, target, options).loss, [
        x,
        w,
      ] as const);
      const first = grad((a: Tensor) => linearDistillationParts(a, w, target, options).loss, x);
      const second = grad((b: Tensor) => linearDistillationParts(x, b, target, options).loss, w);
      expect(first.shape).toEqual([1, N, C]);
      expect([difference(first, both[0]), difference(second, both[1])]).toEqual([0, 0]);
    });
  });

  it("tells the time of the teacher's scores for each block, its output layer's product among it", async () => {
    const times: Promise<number>[] = [];
    const options = { blockElements: 2 * V, onTeacherTime: (ms: Promise<number>) => times.push(ms) };
    scope(() => linearDistillationParts(hidden(), weight(), teacherParts(), options).loss.itemSync());
    expect(times).toHaveLength(Math.ceil(N / 2));
    for (const ms of await Promise.all(times)) expect(ms).toBeGreaterThan(0);
    scope(() => linearDistillationParts(hidden(), weight(), topTarget(3), options).loss.itemSync());
    expect(times, "a few tokens that are known already cost no teacher").toHaveLength(Math.ceil(N / 2));
  });

  it("never holds the logits of all rows", async () => {
    const [rows, width, vocab] = [2048, 8, 2048];
    const of = (stream: number, shape: number[]) => randomNormal({ seed: 3, stream }, shape);
    const params = [of(1, [rows, width]), of(2, [vocab, width])] as const;
    const target = { hidden: of(3, [rows, width]), weight: of(4, [vocab, width]) };
    const ids = tensor(new Int32Array(rows));
    const peakOf = async (blockElements: number) => {
      await sync();
      resetPeakMemory();
      const before = memory().liveBytes;
      scope(() => {
        const { value } = valueAndGrad(
          ([x, w]: readonly [Tensor, Tensor]) =>
            linearDistillationParts(x, w, target, { labels: ids, ceWeight: 0.5, blockElements }).loss,
          params,
        );
        value.itemSync();
      });
      return memory().peakBytes - before;
    };
    const logits = 4 * rows * vocab;
    expect(await peakOf(rows * vocab)).toBeGreaterThan(2 * logits);
    expect(await peakOf(32 * vocab)).toBeLessThan(logits / 2);
    for (const one of [...params, ...Object.values(target), ids]) one.dispose();
  });

  it.each(["bfloat16", "float16"] as const)("takes a student in %s and gives gradients in its dtype", (dtype) => {
    scope(() => {
      const run = (x: Tensor, w: Tensor) =>
        valueAndGrad(
          ([a, b]: readonly [Tensor, Tensor]) =>
            linearDistillationParts(a, b, { logits: teacher("float32") }, { labels: labels(), ceWeight: 0.5 }).loss,
          [x, w] as const,
        );
      const half = run(hidden().astype(dtype), weight().astype(dtype));
      const wide = run(hidden().astype(dtype).astype("float32"), weight().astype(dtype).astype("float32"));
      expect([half.value.dtype, half.grads[0].dtype, half.grads[1].dtype]).toEqual(["float32", dtype, dtype]);
      // Logits of size 8 are rounded to the dtype, and so are the gradients.
      const unit = dtype === "bfloat16" ? 2 ** -8 : 2 ** -11;
      expect(Math.abs(half.value.itemSync() - wide.value.itemSync())).toBeLessThan(2 * 8 * unit);
      for (const i of [0, 1] as const) {
        const apart = difference(half.grads[i].astype("float32"), wide.grads[i]);
        expect(apart).toBeLessThan(2 * 8 * unit * (1 + largest(wide.grads[i])));
      }
    });
  });
});
