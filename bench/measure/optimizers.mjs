/**
 * One optimizer step on arrays of parameters, on tensors or on plain Float32Arrays. The first step is checked by its formula, then steps
 * are timed.
 */
import { engine } from "@llmeff/native";
import { Adagrad, AdamW, Lion, NAdamW, RMSprop, ScheduleFreeAdamW, SGD, Sonew } from "@llmeff/optim";
import { sync, tensor } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { time } from "../lib/timing.mjs";

const { cases, samples, sampleMs } = childOptions();
const { isa, numThreads: threads } = engine().info();
const learningRate = 1e-3;
const weightDecay = 0.1;
/** SONew's; so large that float32 rounding does not show in the check. */
const eps = 1e-2;

/** Cheap numbers without a pattern that matters here; no gradient is near 0, where eps would show. */
function values(n, seed) {
  const out = new Float32Array(n);
  let state = seed;
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    out[i] = state < 0 ? state / 2 ** 31 - 0.01 : state / 2 ** 31 + 0.01;
  }
  return out;
}

/** The usual loop on typed arrays, as JavaScript libraries without a native engine run it. */
class PlainAdamW {
  constructor({ x0: x }) {
    this.x = x;
    this.m = new Float32Array(x.length);
    this.v = new Float32Array(x.length);
    this.t = 0;
  }
  step({ x0: g }) {
    const { x, m, v } = this;
    this.t++;
    const [c1, c2] = [1 / (1 - 0.9 ** this.t), 1 / (1 - 0.999 ** this.t)];
    for (let i = 0; i < x.length; i++) {
      m[i] = 0.9 * m[i] + 0.1 * g[i];
      v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
      x[i] -= learningRate * ((c1 * m[i]) / (Math.sqrt(c2 * v[i]) + 1e-8) + weightDecay * x[i]);
    }
  }
  dispose() {}
}

const common = { learningRate, weightDecay };

function sonewName(band) {
  return band === 1 ? "sonew" : `sonew${band}`;
}

const make = {
  sgd: (params) => new SGD(params, { ...common, decoupled: true }),
  "sgd-momentum": (params) => new SGD(params, { ...common, decoupled: true, momentum: 0.9 }),
  adagrad: (params) => new Adagrad(params, { ...common, decoupled: true }),
  rmsprop: (params) => new RMSprop(params, { ...common, decoupled: true }),
  lion: (params) => new Lion(params, common),
  nadamw: (params) => new NAdamW(params, { ...common, variant: "optax" }),
  "schedule-free": (params) => new ScheduleFreeAdamW(params, common),
  adamw: (params) => new AdamW(params, { learningRate, weightDecay }),
  ...Object.fromEntries(
    [0, 1, 4, 10].flatMap((band) => [
      [sonewName(band), (params) => new Sonew(params, { learningRate, weightDecay, graft: "none", eps, band })],
      [`${sonewName(band)}-graft`, (params) => new Sonew(params, { learningRate, weightDecay, eps, band })],
    ]),
  ),
  "plain-adamw": (params) => new PlainAdamW(params),
};

/** Arrays of the given sizes, by name. */
const arrays = (sizes, seed, wrap) => Object.fromEntries(sizes.map((n, i) => [`x${i}`, wrap(values(n, seed + i))]));

/** Parameters after one step on `n` of them, from memory of the given kind. */
function firstStep(method, n, coat) {
  const wrap = coat === "tensors" ? (data) => tensor(data) : (data) => data;
  const [params, grads] = [arrays([n], 1, wrap), arrays([n], 2, wrap)];
  const optimizer = make[method](params);
  optimizer.step(grads);
  const after = coat === "tensors" ? params.x0.dataSync() : params.x0;
  optimizer.dispose();
  if (coat === "tensors") for (const { x0 } of [params, grads]) x0.dispose();
  return after;
}

/**
 * SONew's first direction by the formulas of the paper in float64. The statistics of a window I after j are then gⱼg_I and
 * g_I g_Iᵀ + eps, whose inverse is known: L[I, j] = −g_I gⱼ / (eps + |g_I|²), S = eps · (1 + gⱼ² / (eps + |g_I|²)). `size`: the sum of the terms'
 * magnitudes, which is what rounding is a part of.
 */
function sonewDirection(g, band) {
  const [u, size] = [new Float64Array(g.length), new Float64Array(g.length)];
  const add = (j, term) => {
    u[j] += term;
    size[j] += Math.abs(term);
  };
  for (let j = 0; j < g.length; j++) {
    const window = g.subarray(j + 1, j + 1 + band);
    const squares = window.reduce((sum, x) => sum + x * x, 0);
    const z = g[j] / (eps + squares + g[j] ** 2);
    add(j, z);
    for (const [k, x] of window.entries()) add(j + 1 + k, ((-x * g[j]) / (eps + squares)) * z);
  }
  return { u, size };
}

/**
 * What the first step does to parameters, by the formulas. That of many methods is the sign of the gradient: RMSprop's average starts at 0 and isn't
 * corrected, Nesterov's momentum in optax's form is.
 */
const firstDirections = {
  sgd: (g) => g,
  "sgd-momentum": (g) => g,
  rmsprop: (g) => Math.sign(g) / Math.sqrt(0.01),
  nadamw: (g) => Math.sign(g) * ((0.9 * 0.1) / (1 - 0.9 ** 2) + 1),
  ...Object.fromEntries(["adagrad", "lion", "adamw", "plain-adamw", "schedule-free"].map((name) => [name, Math.sign])),
};
function direction(method, g) {
  const first = firstDirections[method];
  if (first) {
    const u = Float64Array.from(g, first);
    return { u, size: u.map(Math.abs) };
  }
  const [name, graft] = method.split("-");
  const { u, size } = sonewDirection(g, Number(name.slice("sonew".length) || 1));
  const scale = graft === undefined ? 1 : Math.sqrt(g.length / u.reduce((sum, x) => sum + x * x, 0));
  return { u: u.map((x) => x * scale), size: size.map((x) => x * scale) };
}

function check(method, coat) {
  const n = 10007;
  const [before, after] = [values(n, 1), firstStep(method, n, coat)];
  const { u, size } = direction(method, values(n, 2));
  for (let i = 0; i < n; i++) {
    const expected = before[i] - learningRate * (u[i] + weightDecay * before[i]);
    const tolerance = 1e-3 * learningRate * size[i] + 2 ** -22;
    expect(
      Math.abs(after[i] - expected) <= tolerance,
      `${method} on ${coat} at ${i}: ${after[i]}, expected ${expected}`,
    );
  }
}

for (const { method, coat, n, sizes = [n] } of cases) {
  check(method, coat);
  const wrap = coat === "tensors" ? (data) => tensor(data) : (data) => data;
  const [params, grads] = [arrays(sizes, 1, wrap), arrays(sizes, 1 + sizes.length, wrap)];
  const optimizer = make[method](params);
  const work = async (count) => {
    for (let i = 0; i < count; i++) optimizer.step(grads);
    await sync();
  };
  const { best, median } = await time(work, { samples, sampleMs });
  emit({
    method,
    coat,
    n,
    arrays: sizes.length,
    isa,
    threads,
    ms: 1e3 * best,
    medianMs: 1e3 * median,
    nsPerParameter: (1e9 * best) / n,
    samples,
  });
  optimizer.dispose();
  if (coat === "tensors") for (const x of [...Object.values(params), ...Object.values(grads)]) x.dispose();
  globalThis.gc?.();
}
