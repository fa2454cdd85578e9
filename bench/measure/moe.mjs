/**
 * A mixture of experts, dropless and with a capacity, and the dense layer of as many active weights: turn by turn, so that all see the machine in
 * the same moods. On a GPU the steps are captured, and timed by its own clock.
 */
import { expertCapacity, mixtureOfExperts } from "@llmeff/models";
import {
  captureStep,
  defaultDevice,
  linear,
  linearMany,
  profile,
  randomNormal,
  reshape,
  scope,
  slice,
  swiglu,
  sync,
  tensor,
  valueAndGrad,
} from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { deviceMs } from "../lib/gpu.mjs";
import { median } from "../lib/timing.mjs";

const { tokens: N, d, expertDim, numExperts: E, topK, capacityFactor, rounds, dtype, routings } = childOptions();
const onGpu = defaultDevice() !== "cpu";
/** Of a result of size about 1. */
const tolerance = dtype === "bfloat16" ? 0.02 : 1e-4;
let stream = 0;
const normal = (shape, deviation) =>
  scope(() => randomNormal({ seed: 1, stream: stream++ }, shape).mul(deviation).astype(dtype));
const x = normal([N, d], 1);
const weight = normal([N, d], 1); // of the loss: every gradient is of use

const matrices = (lead, width) => ({
  gate: normal([...lead, width, d], d ** -0.5),
  up: normal([...lead, width, d], d ** -0.5),
  down: normal([...lead, d, width], width ** -0.5),
});
const ffn = (rows, { gate, up, down }) => linear(swiglu(...linearMany(rows, [gate, up])), down);
const lossOf = (y) => y.mul(weight).sum().astype("float32");
const mixture = (capacity, bias) => (p) => {
  const { x: rows, ...weights } = p;
  const { y, routing, dropped } = mixtureOfExperts(rows, bias ? { ...weights, bias } : weights, { topK, capacity });
  return { loss: lossOf(y).add(routing.aux.mul(0.01)), aux: { y, dropped, ...routing } };
};
/** What is added to the scores, which are 1/E on average: nothing, or so much that nearly all tokens choose the first expert, and most the second. */
const biases = {
  uniform: undefined,
  skewed: tensor(Float32Array.from({ length: E }, (_, e) => (e < 3 ? 0.4 / 2 ** e : 0))),
};
const expertParams = { x, router: normal([E, d], d ** -0.5), ...matrices([E], expertDim) };
const runs = {
  dense: { params: { x, ...matrices([], topK * expertDim) }, loss: (p) => ({ loss: lossOf(ffn(p.x, p)), aux: {} }) },
};
for (const routing of routings)
  for (const [name, capacity] of [
    ["dropless", undefined],
    [`capacity ${capacityFactor}`, expertCapacity(N, topK, E, capacityFactor)],
  ]) {
    const loss = mixture(capacity, biases[routing]);
    runs[`${name}, ${routing} routing`] = { params: expertParams, loss, dropless: capacity === undefined };
  }

/** Some tokens by their experts one by one; and by Euler's theorem what the last matrices, in which the layer is linear, and their gradients give. */
function check(name, { params, loss, dropless }) {
  return scope(() => {
    const { value, grads, aux } = valueAndGrad(loss, params);
    const linearPart = grads.down.astype("float32").mul(params.down.astype("float32")).sum().itemSync();
    const want = value.itemSync() - (aux.aux?.itemSync() ?? 0) * 0.01;
    const size = Math.sqrt(N * d);
    expect(Math.abs(linearPart - want) < tolerance * size, `${name}: Σ dW∘W is ${linearPart}, the loss ${want}`);
    const dropped = aux.dropped?.itemSync() ?? 0;
    if (!dropless) return N * topK - dropped;
    expect(dropped === 0, `${dropped} assignments are dropped`);
    const [chosen, gates] = [aux.indices.dataSync(), aux.gates.dataSync()];
    const values = (y) => y.astype("float32").dataSync();
    for (const n of [0, N >> 1, N - 1]) {
      const row = slice(x, 0, n, n + 1);
      const parts = Array.from({ length: topK }, (_, j) => {
        const e = chosen[n * topK + j];
        const own = (w) => reshape(slice(w, 0, e, e + 1), w.shape.slice(1));
        return ffn(row, { gate: own(params.gate), up: own(params.up), down: own(params.down) }).mul(
          gates[n * topK + j],
        );
      });
      const plain = values(parts.reduce((a, b) => a.add(b)));
      const got = values(slice(aux.y, 0, n, n + 1));
      for (const [i, y] of plain.entries()) expect(Math.abs(got[i] - y) < tolerance, `token ${n}: ${got[i]}, not ${y}`);
    }
    return N * topK;
  });
}

/** Seconds of a step. */
async function onHost({ params, loss }) {
  await sync();
  const [start, used] = [performance.now(), process.cpuUsage()];
  scope(() => {
    valueAndGrad(loss, params);
  });
  await sync();
  const { user, system } = process.cpuUsage(used);
  return { seconds: (performance.now() - start) / 1e3, cpuSeconds: (user + system) / 1e6 };
}
async function onDevice({ captured }) {
  return { seconds: (await deviceMs(() => captured({}))) / 1e3, cpuSeconds: 0 };
}
const round = onGpu ? onDevice : onHost;

const names = Object.keys(runs);
for (const name of names) Object.assign(runs[name], { kept: check(name, runs[name]), seconds: [], cpuSeconds: [] });
if (onGpu)
  for (const one of Object.values(runs))
    one.captured = captureStep(() => valueAndGrad(one.loss, one.params).value, { inputs: {}, warmup: 1 });
for (let i = -3; i < rounds; i++) {
  for (let k = 0; k < names.length; k++) {
    const one = runs[names[(k + Math.max(i, 0)) % names.length]];
    const { seconds, cpuSeconds } = await round(one);
    if (i < 0) continue;
    one.seconds.push(seconds);
    one.cpuSeconds.push(cpuSeconds);
  }
}
// Three matrices, each in three products; a multiplication and an addition.
const flops = (rows) => 2 * 9 * rows * d * expertDim;
const rate = ({ kept, seconds }) => flops(kept) / median(seconds) / 1e9;
const { dense, ...mixtures } = runs;
for (const [name, one] of Object.entries(mixtures)) {
  const share = one.kept / (N * topK);
  emit({
    name: `experts, ${name}`,
    gflops: rate(one),
    denseGflops: flops(N * topK) / median(dense.seconds) / 1e9,
    // What remains when a round of one is held against its neighbour: drifts of the machine cancel.
    ratio: share * median(dense.seconds.map((s, i) => s / one.seconds[i])),
    // The same of the processors' time, which other programs don't lengthen by taking turns.
    ...(onGpu ? {} : { cpuRatio: (share * Math.min(...dense.cpuSeconds)) / Math.min(...one.cpuSeconds) }),
    ms: 1e3 * median(one.seconds),
    denseMs: 1e3 * median(dense.seconds),
    kept: share,
    ...(onGpu ? { msOfOps: millisecondsOfOps(one) } : {}),
  });
}

/** What the kinds of kernels of an uncaptured step take, those that count. */
function millisecondsOfOps({ params, loss }) {
  const { ops } = profile(() => scope(() => void valueAndGrad(loss, params)));
  return Object.fromEntries(
    ops
      .filter(({ milliseconds }) => milliseconds > 0.01)
      .map(({ op, calls, milliseconds }) => [`${op} × ${calls}`, milliseconds]),
  );
}
