import { scope, type Tensor, type TensorTree, tensor } from "@llmeff/tensor";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  accumulate,
  adamw,
  adaptiveGradClip,
  addDecayedWeights,
  applyIfFinite,
  applyUpdates,
  centralize,
  chain,
  clip,
  clipByBlockRms,
  clipByGlobalNorm,
  ema,
  type GradientTransformation,
  graft,
  identity,
  injectHyperparams,
  lookahead,
  masked,
  matrices,
  optimizerOf,
  type Parameter,
  partition,
  type ScalarOrSchedule,
  scale,
  scaleByAdam,
  scaleByLearningRate,
  scaleBySchedule,
  scaleBySonew,
  setToZero,
  sonew,
  type TransformState,
  trace,
} from "./index.js";

const f64 = (values: number[], shape = [values.length]) => tensor(Float64Array.from(values), { shape });
const values = (x: TensorTree | undefined) => Array.from((x as Tensor).dataSync());

/** The updates of vectors `grads`, one after the other, of one parameter at 1. */
function updatesOf(transform: GradientTransformation, grads: readonly (readonly number[])[]): number[][] {
  const params = f64(grads[0]!.map(() => 1));
  let state = transform.init(params);
  return grads.map((g) => {
    const result = transform.update(f64([...g]), state, params);
    state = result.state;
    return values(result.updates);
  });
}

describe("accumulate", () => {
  it("gives the mean of every k gradients to the inner transform", () => {
    const every2 = accumulate(
      scaleByLearningRate((step) => 10 ** step),
      2,
    );
    expect(updatesOf(every2, [[1], [3], [5], [7]])).toEqual([[0], [-2], [0], [-60]]); // −1·2, −10·6
  });

  it("takes a number of gradients that depends on the updates so far", () => {
    const growing = accumulate(scale(1), (update) => update + 1);
    expect(updatesOf(growing, [[1], [2], [4], [6]])).toEqual([[1], [0], [3], [0]]);
  });

  it("steps as one large batch does", () => {
    const batches = [0, 1, 2, 3, 4, 5].map((i) => f64([Math.sin(i), Math.cos(3 * i)]));
    const [small, large] = [accumulate(adamw(0.1), 3), adamw(0.1)];
    let p = f64([1, 2]);
    let q = f64([1, 2]);
    let s = small.init(p);
    let t = large.init(q);
    for (const [i, g] of batches.entries()) {
      const result = small.update(g, s, p);
      p = applyUpdates(p, result.updates);
      s = result.state;
      if (i % 3 < 2) continue;
      const total: Tensor = batches.slice(i - 2, i + 1).reduce((a, b) => a.add(b));
      const whole = large.update(total.div(3), t, q);
      q = applyUpdates(q, whole.updates);
      t = whole.state;
    }
    for (const [i, x] of values(p).entries()) expect(Math.abs(x - values(q)[i]!)).toBeLessThan(1e-14);
  });

  describe("under an optimizer that skips gradients that aren't finite", () => {
    /** The parameter, which starts at 0, after each gradient; the optimizer is saved and loaded before gradient `reload`. */
    function run(kind: "arrays" | "tensors", every: ScalarOrSchedule, grads: readonly number[], reload = -1): number[] {
      const wrap = (x: number): Parameter => (kind === "arrays" ? Float64Array.of(x) : f64([x]));
      const params = { w: wrap(0) };
      const make = () =>
        optimizerOf<Parameter>(
          params,
          ({ learningRate }) => accumulate(chain(trace({ decay: 0.5 }), scale(-learningRate)), every),
          { learningRate: 1, maxGradNorm: 1e9 },
        );
      let optimizer = make();
      return grads.map((g, i) => {
        if (i === reload) {
          const { tensors, meta } = optimizer.stateDict();
          optimizer = make();
          optimizer.loadStateDict({ tensors, meta: JSON.parse(JSON.stringify(meta)) });
        }
        optimizer.step({ w: wrap(g) });
        return (params.w instanceof Float64Array ? params.w : (params.w as Tensor).dataSync())[0] as number;
      });
    }

    /** The same by hand: batches with a gradient that isn't finite leave everything as it is. */
    function expected(every: (update: number) => number, grads: readonly number[]): number[] {
      let [w, velocity, updates] = [0, 0, 0];
      let batch: number[] = [];
      return grads.map((g) => {
        batch.push(g);
        if (batch.length === every(updates)) {
          const mean = batch.reduce((sum, x) => sum + x, 0) / batch.length;
          if (Number.isFinite(mean)) {
            velocity = 0.5 * velocity + mean;
            w -= velocity;
          }
          batch = [];
          updates++;
        }
        return w;
      });
    }

    const kinds = ["arrays", "tensors"] as const;

    it.each(kinds)(
      "drops a batch with one of them as a whole, and takes no gradient of an earlier batch: %s",
      (kind) => {
        const N = Number.NaN;
        const last = (grads: readonly number[]) => run(kind, 4, grads).at(-1);
        expect(last([100, 100, 100, N, N, 1, 1, 1])).toBe(0);
        expect(last([1, N, 3, 4])).toBe(0);
        expect(last([100, N, N, N, N, 1, 1, 1])).toBe(0);
        expect(last([N, 2, 3, 4, 1, 2, 3, 6])).toBe(-3);
        expect(last([100, 100, 100, Number.POSITIVE_INFINITY, 1, 2, 3, 6])).toBe(-3);
        // 4, then nothing, then 0.5·4 + 2.
        expect(last([4, 4, 4, 4, 7, N, 7, 7, 2, 2, 2, 2])).toBe(-8);
      },
    );

    it.each(kinds)("does so wherever they are, with batches that grow, and saved and loaded anywhere: %s", (kind) => {
      const gradient = fc.oneof(
        { weight: 4, arbitrary: fc.integer({ min: -8, max: 8 }) },
        fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY),
      );
      const check = (grads: number[], reload: number, growing: boolean) => {
        const every = (update: number) => (growing ? 1 + (update % 4) : 3);
        const [got, want] = [run(kind, growing ? every : 3, grads, reload), expected(every, grads)];
        for (const [i, x] of want.entries()) expect(got[i], `after gradient ${i}`).toBeCloseTo(x, 12);
      };
      const grads = fc.array(gradient, { minLength: 1, maxLength: 20 });
      fc.assert(fc.property(grads, fc.nat(19), fc.boolean(), check), { numRuns: 60, seed: 1 });
    });

    it("gives applyIfFinite around it the same", () => {
      const transform = applyIfFinite(accumulate(scale(1), 2), 9);
      const updates = updatesOf(transform, [[100], [Number.NaN], [Number.NaN], [1], [2], [4]]);
      expect(updates).toEqual([[0], [0], [0], [0], [0], [3]]);
    });

    it("refuses states saved when nothing told of skipped gradients, and stays as it is", () => {
      const optimizer = optimizerOf({ w: Float64Array.of(0) }, () => accumulate(scale(-1), 2));
      optimizer.step({ w: Float64Array.of(3) });
      const { tensors, meta } = structuredClone(optimizer.stateDict());
      const { "w.unbroken": _, ...older } = tensors;
      expect(() => optimizer.loadStateDict({ tensors: older, meta })).toThrow('"w.unbroken" is missing.');
      expect(optimizer.stateDict()).toEqual({ tensors, meta });
    });
  });
});

describe("applyIfFinite", () => {
  const bad = [[Number.NaN], [Number.POSITIVE_INFINITY], [Number.NEGATIVE_INFINITY]];

  it("leaves out updates that are not finite, keeps the arrays of the state, and counts", () => {
    const transform = applyIfFinite(trace({ decay: 0.5 }), 2);
    const params = f64([1]);
    let state = transform.init(params);
    const seen = [[4], ...bad.slice(0, 2), [1]].map((g) => {
      const result = transform.update(f64(g), state, params);
      state = result.state;
      return [...values(result.updates), ...values(state.consecutiveErrors), ...values(state.totalErrors)];
    });
    // 1 + 0.5·4: the trace never saw the NaN.
    expect(seen).toEqual([
      [4, 0, 0],
      [0, 1, 1],
      [0, 2, 2],
      [3, 0, 2],
    ]);
  });

  it("lets them through after too many in a row", () => {
    const seen = updatesOf(applyIfFinite(identity(), 2), [...bad, [1], ...bad]);
    expect(seen).toEqual([[0], [0], [Number.NEGATIVE_INFINITY], [1], [0], [0], [Number.NEGATIVE_INFINITY]]);
    expect(updatesOf(applyIfFinite(identity(), 0), [[Number.NaN], [2]])).toEqual([[Number.NaN], [2]]);
  });

  it("looks at all leaves together", () => {
    const grads = { a: f64([1]), b: [f64([Number.NaN])] };
    const transform = applyIfFinite(identity(), 1);
    const { updates } = transform.update(grads, transform.init(grads), grads);
    expect(values(updates.a)).toEqual([0]);
  });
});

describe("clipByBlockRms and adaptiveGradClip", () => {
  it("limit the root mean square of each tensor", () => {
    // RMS of (3, 4) is √12.5; of the second tensor 0.5
    const grads = [f64([3, 4]), f64([0.5, -0.5])];
    const { updates } = clipByBlockRms(1).update(grads, {}, grads);
    const rms = Math.sqrt(12.5);
    expect(values(updates[0])).toEqual([3 / rms, 4 / rms].map((x) => expect.closeTo(x, 14)));
    expect(values(updates[1])).toEqual([0.5, -0.5]);
  });

  it("limit each output unit's gradient to a share of its weights", () => {
    // Rows: |p| = 5, |g| = 10 → 0.1·5/10 = 0.05; |p| = 0 → eps 1: 0.1·1/0.2 = 0.5; |g| small: as it is.
    const p = f64([3, 4, 0, 0, 6, 8], [3, 2]);
    const g = f64([6, 8, 0.2, 0, 0.1, 0.1], [3, 2]);
    const { updates } = adaptiveGradClip(0.1, { eps: 1 }).update(g, {}, p);
    expect(values(updates)).toEqual([0.3, 0.4, 0.1, 0, 0.1, 0.1].map((x) => expect.closeTo(x, 14)));
    // A vector is one unit: |p| = 5, |g| = 1.
    expect(values(adaptiveGradClip(0.1).update(f64([0, 1]), {}, f64([3, 4])).updates)).toEqual([0, 0.5]);
  });
});

describe("centralize, setToZero and scaleBySchedule", () => {
  it("take the mean of each output unit from matrices only", () => {
    const grads = { w: f64([1, 3, 10, 20], [2, 2]), b: f64([1, 2]) };
    const { updates } = centralize().update(grads, {}, grads);
    expect(values(updates.w)).toEqual([-1, 1, -5, 5]);
    expect(values(updates.b)).toEqual([1, 2]);
  });

  it("count their own steps", () => {
    expect(
      updatesOf(
        scaleBySchedule((step) => step - 1),
        [[2], [2], [2]],
      ),
    ).toEqual([[-2], [0], [2]]);
    expect(updatesOf(setToZero(), [[5], [Number.NaN]])).toEqual([[0], [0]]);
    expect(() =>
      updatesOf(
        scaleBySchedule(() => Number.NaN),
        [[1]],
      ),
    ).toThrow("[scaleBySchedule] [step 0] factor must be a finite number; received NaN.");
  });
});

describe("ema", () => {
  it("averages updates, corrected for its start at 0", () => {
    // e: 1, 0.5·1 + 0.5·4 = 2.5 (of 2 → e = 0.5·2 = 1); corrected by 1/2 and 3/4
    expect(updatesOf(ema(0.5, { debias: false }), [[2], [4]])).toEqual([[1], [2.5]]);
    expect(updatesOf(ema(0.5), [[2], [4]])).toEqual([[2], [2.5 / 0.75]]);
  });
});

describe("lookahead", () => {
  it("moves the slow weights part of the way, and the parameters back to them", () => {
    const transform = lookahead(scale(-1), { syncPeriod: 2, slowStepSize: 0.25 });
    let params = f64([8]);
    let state = transform.init(params);
    const seen: number[] = [];
    for (const g of [1, 3, 2, 2]) {
      const result = transform.update(f64([g]), state, params);
      params = applyUpdates(params, result.updates);
      state = result.state;
      seen.push(...values(params));
    }
    // fast 7, 4 → slow 8 − 0.25·4 = 7; fast 5, 3 → slow 7 − 0.25·4 = 6
    expect(seen).toEqual([7, 7, 5, 6]);
  });
});

describe("graft", () => {
  it("has the direction of one and the length of the other, tensor by tensor", () => {
    const grads = [f64([3, 4]), f64([0, 2])];
    const { updates } = graft(scale(2), clip(3)).update(grads, graft(scale(2), clip(3)).init(grads), grads);
    const length = Math.hypot(3, 3); // clipped to (3, 3), to be 10 long
    expect(values(updates[0])).toEqual([30 / length, 30 / length].map((x) => expect.closeTo(x, 13)));
    expect(values(updates[1])).toEqual([0, 4]);
  });

  it("is SONew's own graft", () => {
    const gradsAt = (step: number) =>
      f64(
        [1, 2, 3, 4, 5, 6].map((i) => Math.sin(i * i + step)),
        [2, 3],
      );
    const options = { eps: 1e-4, beta1: 0.9, beta2: 0.99 };
    const own = scaleBySonew({ ...options, graft: "adam", graftEps: 1e-8 });
    const built = graft(scaleByAdam({ beta1: 0.9, beta2: 0.99 }), scaleBySonew({ ...options, graft: "none" }));
    let states: [TransformState, TransformState] = [own.init(gradsAt(0)), built.init(gradsAt(0))];
    for (let step = 0; step < 3; step++) {
      const [a, b] = [
        own.update(gradsAt(step), states[0] as never, gradsAt(0)),
        built.update(gradsAt(step), states[1] as never, gradsAt(0)),
      ];
      for (const [i, x] of values(a.updates).entries()) expect(Math.abs(x - values(b.updates)[i]!)).toBeLessThan(1e-13);
      states = [a.state, b.state];
    }
  });

  it("is 0 where the direction is", () => {
    const g = f64([1, 1]);
    expect(values(graft(identity(), setToZero()).update(g, { magnitude: {}, direction: {} }, g).updates)).toEqual([
      0, 0,
    ]);
  });
});

describe("injectHyperparams", () => {
  const transform = injectHyperparams(({ rate, decay }) => chain(trace({ decay }), scaleByLearningRate(rate)), {
    rate: (step: number) => step + 1,
    decay: 0.5,
  });

  it("keeps them in the state, where those without a schedule can be changed", () => {
    const params = f64([0]);
    let state = transform.init(params);
    expect(state.hyperparams).toEqual({ rate: 1, decay: 0.5 });
    const seen: number[] = [];
    for (let step = 0; step < 3; step++) {
      if (step === 2) state = { ...state, hyperparams: { ...state.hyperparams, decay: 0 } };
      const result = transform.update(f64([4]), state, params);
      seen.push(...values(result.updates));
      state = result.state;
    }
    expect(seen).toEqual([-4, -12, -12]); // 1·4, 2·(4 + 0.5·4), 3·4
    expect(state.hyperparams).toEqual({ rate: 3, decay: 0 });
  });

  it("refuses what the transform refuses, and what is no number", () => {
    const state = transform.init(f64([0]));
    const changed = (decay: unknown) => ({ ...state, hyperparams: { ...state.hyperparams, decay: decay as number } });
    expect(() => transform.update(f64([0]), changed(1), f64([0]))).toThrow("[trace] decay must be a number in [0, 1)");
    expect(() => transform.update(f64([0]), changed("x"), f64([0]))).toThrow(
      '[injectHyperparams] [update 0] decay must be a finite number; received "x".',
    );
  });
});

describe("partition", () => {
  const params = { w: f64([1, 2], [1, 2]), b: f64([3]), head: { w: f64([4, 4], [2, 1]) } };
  const labelOf = (path: string, p: Tensor) => (path.startsWith("head") ? "frozen" : p.rank >= 2 ? "matrices" : "rest");

  it("gives each parameter the transform of its label", () => {
    const transform = partition({ matrices: scale(10), rest: scale(-1), frozen: setToZero() }, labelOf);
    const { updates } = transform.update(params, transform.init(params), params);
    expect([values(updates.w), values(updates.b), values(updates.head.w)]).toEqual([[10, 20], [-3], [0, 0]]);
  });

  it("keeps norms within a label", () => {
    const transform = partition({ matrices: clipByGlobalNorm(1), rest: identity(), frozen: identity() }, labelOf);
    const { updates } = transform.update(params, transform.init(params), params);
    expect(values(updates.w)[0]).toBeCloseTo(1 / Math.sqrt(5), 5);
    expect(values(updates.b)).toEqual([3]);
  });

  it("refuses a label without a transform", () => {
    const transform = partition({ matrices: scale(1), frozen: scale(1) } as never, labelOf as never);
    expect(() => transform.init(params)).toThrow(
      '[partition] "b" has the label "rest", which has no transform. Labels: matrices, frozen.',
    );
  });
});

describe("bad options", () => {
  it.each<[string, () => unknown, string]>([
    ["accumulate 0", () => accumulate(identity(), 0), "[accumulate] every must be a positive integer; received 0."],
    ["accumulate 1.5", () => accumulate(identity(), 1.5), "every must be a positive integer; received 1.5."],
    [
      "a schedule of 0",
      () =>
        updatesOf(
          accumulate(identity(), () => 0),
          [[1]],
        ),
      "every must be a positive integer",
    ],
    ["−1 errors", () => applyIfFinite(identity(), -1), "[applyIfFinite] maxConsecutiveErrors must be a non-negative"],
    ["threshold 0", () => clipByBlockRms(0), "[clipByBlockRms] threshold must be a positive number; received 0."],
    ["clipping NaN", () => adaptiveGradClip(Number.NaN), "[adaptiveGradClip] clipping must be a positive number"],
    ["eps 0", () => adaptiveGradClip(1, { eps: 0 }), "[adaptiveGradClip] eps must be a positive number; received 0."],
    ["decay 1", () => ema(1), "[ema] decay must be a number in [0, 1); received 1."],
    ["a misspelt option", () => ema(0.5, { debiased: true } as object), '[ema] unknown option "debiased"'],
    ["period 0", () => lookahead(identity(), { syncPeriod: 0 }), "[lookahead] syncPeriod must be a positive integer"],
    ["step size 0", () => lookahead(identity(), { slowStepSize: 0 }), "slowStepSize must be a number in (0, 1]"],
    [
      "a rate of NaN",
      () => injectHyperparams(() => identity(), { r: Number.NaN }).init(f64([0])),
      "r must be a finite",
    ],
  ])("%s", (_name, act, message) => {
    expect(act).toThrow(message);
  });
});

/** Every transform that has options or state, as a whole optimizer. */
const wholes: Record<string, () => GradientTransformation> = {
  accumulate: () => accumulate(adamw(0.1), 3),
  adaptiveGradClip: () => chain(adaptiveGradClip(0.1), scale(-0.1)),
  applyIfFinite: () => applyIfFinite(adamw(0.1), 2),
  centralize: () => chain(centralize(), scale(-0.1)),
  clipByBlockRms: () => chain(clipByBlockRms(0.5), scale(-0.1)),
  ema: () => chain(ema(0.9), scale(-0.1)),
  graft: () => chain(graft(scaleByAdam(), scaleBySonew({ graft: "none", eps: 1e-3 })), scale(-0.1)),
  injectHyperparams: () => injectHyperparams(({ lr }) => adamw(lr), { lr: (step: number) => 0.1 / (step + 1) }),
  lookahead: () => lookahead(adamw(0.1), { syncPeriod: 2 }),
  masked: () =>
    chain(
      masked(trace({ decay: 0.9 }), (_path, p) => p.rank >= 2),
      addDecayedWeights(0.1),
      scale(-0.1),
    ),
  partition: () =>
    partition({ matrices: sonew(0.1, { eps: 1e-3 }), rest: adamw(0.1) }, (path, p) =>
      matrices(path, p.shape) ? "matrices" : "rest",
    ),
  scaleBySchedule: () =>
    chain(
      scaleBySchedule((step) => -0.1 * step),
      trace({ decay: 0.5, nesterov: true }),
    ),
};

describe.each(Object.entries(wholes))("%s as an optimizer", (_name, make) => {
  const start = () => ({ "layers.0.weight": Float32Array.of(1, 2, 3, 4, 5, 6), bias: Float32Array.of(1, -1) });
  const shapes = { "layers.0.weight": [2, 3] };
  const gradsAt = (step: number) => ({
    "layers.0.weight": Float32Array.from({ length: 6 }, (_, i) => Math.sin(i + 7 * step)),
    bias: Float32Array.of(Math.cos(step), 0.5),
  });

  it("continues from its saved state bit by bit", () => {
    const [straight, resumed] = [start(), start()];
    const uninterrupted = optimizerOf(straight, make, { shapes });
    for (let step = 0; step < 9; step++) uninterrupted.step(gradsAt(step));
    const first = optimizerOf(resumed, make, { shapes });
    for (let step = 0; step < 4; step++) first.step(gradsAt(step));
    const second = optimizerOf(resumed, make, { shapes });
    const { tensors, meta } = structuredClone(first.stateDict());
    second.loadStateDict({ tensors, meta: JSON.parse(JSON.stringify(meta)) });
    for (let step = 4; step < 9; step++) second.step(gradsAt(step));
    expect(resumed).toEqual(straight);
    expect(second.stateDict()).toEqual(uninterrupted.stateDict());
    expect(straight).not.toEqual(start());
  });

  it("changes neither the gradients, nor its state, nor the parameters itself", () => {
    const toTree = (arrays: Record<string, Float32Array>) =>
      Object.fromEntries(
        Object.entries(arrays).map(([name, x]) => [
          name,
          tensor(x, { shape: shapes[name as "layers.0.weight"] ?? [x.length] }),
        ]),
      );
    const transform = make();
    const [params, grads] = [toTree(start()), toTree(gradsAt(0))];
    const state = scope(() => transform.update(grads, transform.init(params), params).state);
    const look = () =>
      JSON.stringify([params, grads, state], (_key, value) =>
        typeof value === "object" && "dataSync" in value ? Array.from((value as Tensor).dataSync()) : value,
      );
    const before = look();
    transform.update(toTree(gradsAt(1)), state, params);
    transform.update(grads, state, params);
    expect(look()).toBe(before);
  });
});
