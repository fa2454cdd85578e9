/**
 * One optimizer step on one array of parameters, on tensors or on plain Float32Arrays. The first step is checked by its formula, then steps
 * are timed. With zero statistics before it, AdamW's first step is `p − lr·(sign(g) + wd·p)` up to eps; SONew's is compared between both coats.
 */
import { engine } from "@llmeff/native";
import { AdamW, Sonew } from "@llmeff/optim";
import { sync, tensor } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { time } from "../lib/timing.mjs";

const { cases, samples, sampleMs } = childOptions();
const { isa, numThreads: threads } = engine().info();
const learningRate = 1e-3;
const weightDecay = 0.1;

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
  constructor({ x }) {
    this.x = x;
    this.m = new Float32Array(x.length);
    this.v = new Float32Array(x.length);
    this.t = 0;
  }
  step({ x: g }) {
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

const make = {
  adamw: (params) => new AdamW(params, { learningRate, weightDecay }),
  sonew: (params) => new Sonew(params, { learningRate, weightDecay, graft: "none", eps: 1e-4 }),
  "sonew-graft": (params) => new Sonew(params, { learningRate, weightDecay, eps: 1e-4 }),
  "plain-adamw": (params) => new PlainAdamW(params),
};

/** Parameters after one step on `n` of them, from memory of the given kind. */
function firstStep(method, n, coat) {
  const wrap = coat === "tensors" ? (data) => tensor(data) : (data) => data;
  const [params, grads] = [{ x: wrap(values(n, 1)) }, { x: wrap(values(n, 2)) }];
  const optimizer = make[method](params);
  optimizer.step(grads);
  const after = coat === "tensors" ? params.x.dataSync() : params.x;
  optimizer.dispose();
  if (coat === "tensors") for (const { x } of [params, grads]) x.dispose();
  return after;
}

function check(method, coat) {
  const n = 10007;
  const [before, grad, after] = [values(n, 1), values(n, 2), firstStep(method, n, coat)];
  const adam = method === "adamw" || method === "plain-adamw";
  const other = adam ? undefined : firstStep(method, n, coat === "tensors" ? "Float32Array" : "tensors");
  for (let i = 0; i < n; i++) {
    const expected = adam ? before[i] - learningRate * (Math.sign(grad[i]) + weightDecay * before[i]) : other[i];
    expect(Math.abs(after[i] - expected) <= 1e-6, `${method} on ${coat} at ${i}: ${after[i]}, expected ${expected}`);
    expect(adam || after[i] !== before[i], `${method} on ${coat} left parameter ${i} as it was`);
  }
}

for (const { method, coat, n } of cases) {
  check(method, coat);
  const wrap = coat === "tensors" ? (data) => tensor(data) : (data) => data;
  const [params, grads] = [{ x: wrap(values(n, 1)) }, { x: wrap(values(n, 2)) }];
  const optimizer = make[method](params);
  const work = async (count) => {
    for (let i = 0; i < count; i++) optimizer.step(grads);
    await sync();
  };
  const { best, median } = await time(work, { samples, sampleMs });
  emit({ method, coat, n, isa, threads, ms: 1e3 * best, medianMs: 1e3 * median, nsPerParameter: (1e9 * best) / n, samples });
  optimizer.dispose();
  if (coat === "tensors") for (const { x } of [params, grads]) x.dispose();
  globalThis.gc?.();
}
