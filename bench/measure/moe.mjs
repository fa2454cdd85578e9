/** A mixture of experts, dropless and with a capacity, and the dense layer of as many active weights: turn by turn, so that all see the machine in the same moods. */
import { expertCapacity, mixtureOfExperts } from "@llmeff/models";
import { linear, linearMany, randomNormal, reshape, scope, slice, swiglu, sync, valueAndGrad } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { median } from "../lib/timing.mjs";

const { tokens: N, d, expertDim, numExperts: E, topK, capacityFactor, rounds } = childOptions();
let stream = 0;
const normal = (shape, deviation) => randomNormal({ seed: 1, stream: stream++ }, shape).mul(deviation);
const x = normal([N, d], 1);
const weight = normal([N, d], 1); // of the loss: every gradient is of use

const matrices = (lead, width) => ({
  gate: normal([...lead, width, d], d ** -0.5),
  up: normal([...lead, width, d], d ** -0.5),
  down: normal([...lead, d, width], width ** -0.5),
});
const ffn = (rows, { gate, up, down }) => linear(swiglu(...linearMany(rows, [gate, up])), down);
const mixture = (capacity) => (p) => {
  const { x: rows, ...weights } = p;
  const { y, routing, dropped } = mixtureOfExperts(rows, weights, { topK, capacity });
  return { loss: y.mul(weight).sum().add(routing.aux.mul(0.01)), aux: { y, dropped, ...routing } };
};
const expertParams = { x, router: normal([E, d], d ** -0.5), ...matrices([E], expertDim) };
const runs = {
  dense: {
    params: { x, ...matrices([], topK * expertDim) },
    loss: (p) => ({ loss: ffn(p.x, p).mul(weight).sum(), aux: {} }),
  },
  dropless: { params: expertParams, loss: mixture(undefined) },
  [`capacity ${capacityFactor}`]: { params: expertParams, loss: mixture(expertCapacity(N, topK, E, capacityFactor)) },
};

/** Some tokens by their experts one by one; and by Euler's theorem what the last matrices, in which the layer is linear, and their gradients give. */
function check(name, { params, loss }) {
  return scope(() => {
    const { value, grads, aux } = valueAndGrad(loss, params);
    const linearPart = grads.down.mul(params.down).sum().itemSync();
    const want = value.itemSync() - (aux.aux?.itemSync() ?? 0) * 0.01;
    const size = Math.sqrt(N * d);
    expect(Math.abs(linearPart - want) < 1e-4 * size, `${name}: Σ dW∘W is ${linearPart}, the loss ${want}`);
    const dropped = aux.dropped?.itemSync() ?? 0;
    if (name !== "dropless") return N * topK - dropped;
    expect(dropped === 0, `${dropped} assignments are dropped`);
    const [chosen, gates] = [aux.indices.dataSync(), aux.gates.dataSync()];
    for (const n of [0, N >> 1, N - 1]) {
      const row = slice(x, 0, n, n + 1);
      const parts = Array.from({ length: topK }, (_, j) => {
        const e = chosen[n * topK + j];
        const own = (w) => reshape(slice(w, 0, e, e + 1), w.shape.slice(1));
        return ffn(row, { gate: own(params.gate), up: own(params.up), down: own(params.down) }).mul(
          gates[n * topK + j],
        );
      });
      const plain = parts.reduce((a, b) => a.add(b)).dataSync();
      const got = slice(aux.y, 0, n, n + 1).dataSync();
      for (const [i, y] of plain.entries()) expect(Math.abs(got[i] - y) < 1e-4, `token ${n}: ${got[i]}, not ${y}`);
    }
    return N * topK;
  });
}

async function round({ params, loss }) {
  await sync();
  const [start, used] = [performance.now(), process.cpuUsage()];
  scope(() => {
    valueAndGrad(loss, params);
  });
  await sync();
  const { user, system } = process.cpuUsage(used);
  return { seconds: (performance.now() - start) / 1e3, cpuSeconds: (user + system) / 1e6 };
}

const names = Object.keys(runs);
for (const name of names) Object.assign(runs[name], { kept: check(name, runs[name]), seconds: [], cpuSeconds: [] });
for (let i = -2; i < rounds; i++) {
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
    cpuRatio: (share * Math.min(...dense.cpuSeconds)) / Math.min(...one.cpuSeconds),
    ms: 1e3 * median(one.seconds),
    denseMs: 1e3 * median(dense.seconds),
    kept: share,
  });
}
