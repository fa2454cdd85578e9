/**
 * Attention kernels of the engine, forward and backward, beside matrix products of the same process. Shapes are checked before they are
 * timed: some outputs against float64, gradients by Euler's theorem (outputs are linear in each value array, logits in each of q and the keys).
 */
import { engine } from "@llmeff/native";
import { matmul, ones, randomNormal, scope, sync, tensor, zeros } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { time } from "../lib/timing.mjs";

const { cases, matmulSize, samples, sampleMs } = childOptions();
const { op } = engine();
const { isa, numThreads: threads } = engine().info();

const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
const norm = (x) => Math.sqrt(dot(x, x));

/** `Σ a·b` of two pairs of arrays, which must agree up to rounding. */
function expectSameProduct(what, [a, b], [c, d]) {
  const [left, right] = [dot(a, b), dot(c, d)];
  const tolerance = 1e-5 * (norm(a) * norm(b) + norm(c) * norm(d));
  expect(Math.abs(left - right) <= tolerance, `${what}: ${left} and ${right}`);
}

/** The most positions that a query at `i` sees in a window, 0 standing for all. */
const seen = (i, window) => (window === 0 ? i + 1 : Math.min(i + 1, window));

/** Keys that the query at `i` of S positions sees, which are cut into equal documents. */
const keysSeen = (i, { S, w1, documents }) => Math.min(seen(i, w1), (i % (S / documents)) + 1);

/** Output row of the last query of the last head in float64, by the formula. */
function referenceRow(shape, { q, k1, k2, v1, v2 }) {
  const { S, T, H, K, D, w2, kind, softcap } = shape;
  const i = S - 1;
  const at = (x, row, heads, head) => x.subarray((row * heads + head) * D, (row * heads + head + 1) * D);
  const query = at(q, T - 1, H, H - 1);
  const simplicial = kind === "simplicial";
  const weights = [];
  const out = new Float64Array(D);
  const pairs = [];
  for (let j = i - keysSeen(i, shape) + 1; j <= i; j++)
    for (let k = simplicial ? i - seen(i, w2) + 1 : i; k <= i; k++) {
      let logit = 0;
      const [a, b] = [at(k1, j, K, K - 1), simplicial ? at(k2, k, K, K - 1) : undefined];
      for (let d = 0; d < D; d++) logit += query[d] * a[d] * (b ? b[d] : 1);
      const scaled = logit / Math.sqrt(D);
      weights.push(softcap > 0 ? softcap * Math.tanh(scaled / softcap) : scaled);
      pairs.push([j, k]);
    }
  const largest = weights.reduce((most, x) => Math.max(most, x), Number.NEGATIVE_INFINITY);
  let sum = 0;
  for (const [p, [j, k]] of pairs.entries()) {
    const weight = Math.exp(weights[p] - largest);
    sum += weight;
    const [a, b] = [at(v1, j, K, K - 1), simplicial ? at(v2, k, K, K - 1) : undefined];
    for (let d = 0; d < D; d++) out[d] += weight * a[d] * (b ? b[d] : 1);
  }
  return out.map((x) => x / sum);
}

/** Arrays of a case, with functions that queue its kernels. T queries at the end of S positions. */
function prepare(shape) {
  const { kind, B, T, S, H, K, D, w1, w2, softcap, documents } = shape;
  const queries = [B, T, H, D];
  const keys = [B, S, K, D];
  const simplicial = kind === "simplicial";
  const inputs = {
    q: queries,
    k1: keys,
    ...(simplicial ? { k2: keys } : {}),
    v1: keys,
    ...(simplicial ? { v2: keys } : {}),
  };
  const x = Object.fromEntries(
    Object.entries(inputs).map(([name, s], i) => [name, randomNormal({ seed: 1, stream: i }, s)]),
  );
  const d = Object.fromEntries(Object.entries(inputs).map(([name, s]) => [name, zeros(s)]));
  const [out, lse, dout] = [zeros(queries), zeros([B, H, T]), randomNormal({ seed: 2 }, queries)];
  const handles = (tensors) => Object.values(tensors).map((tensor) => tensor.handle);
  const scale = 1 / Math.sqrt(D);
  const settings = simplicial ? [scale, true, w1, w2, 0, 0, S - T, 0, 0, false] : [scale, true, w1, S - T, softcap];
  const ids = tensor(
    Int32Array.from({ length: S }, (_, i) => Math.floor((i * documents) / S)),
    { shape: [1, S] },
  );
  const ofQueries = ids.slice(1, S - T).expand([B, T]);
  const ofKeys = ids.expand([B, S]);
  const masks = simplicial ? [] : documents > 1 ? [ofQueries.handle, ofKeys.handle, null] : [null, null, null];
  const [forwardOp, backwardOp] = simplicial
    ? [op.simplicialAttention, op.simplicialAttentionGrad]
    : [op.attention, op.attentionGrad];
  return {
    x,
    d,
    out,
    dout,
    masks: [ids, ofQueries, ofKeys],
    forward: () => forwardOp(...handles(x), ...masks, ...settings, out.handle, lse.handle),
    backward: () =>
      backwardOp(
        dout.handle,
        ...(simplicial ? [] : [null]),
        ...handles(x),
        out.handle,
        lse.handle,
        ...masks,
        ...settings,
        ...(simplicial ? [] : [null, null, false]), // no rotary turn
        ...handles(d),
      ),
  };
}

function check(shape, { x, d, out, dout, forward, backward }) {
  forward();
  backward();
  const values = (tensors) => Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, t.dataSync()]));
  const [xs, ds, o, dO] = [values(x), values(d), out.dataSync(), dout.dataSync()];
  if (shape.B === 1) {
    const expected = referenceRow(shape, xs);
    const got = o.subarray(o.length - shape.D);
    const error = norm(got.map((value, i) => value - expected[i]));
    expect(error <= 1e-4 * norm(expected), `${shape.name}: the last output differs by ${error}`);
  }
  for (const name of ["v1", "v2"])
    if (xs[name]) expectSameProduct(`${shape.name}, d${name}`, [xs[name], ds[name]], [o, dO]);
  // A capped logit is not linear in its factors.
  for (const name of shape.softcap > 0 ? [] : ["k1", "k2"])
    if (xs[name]) expectSameProduct(`${shape.name}, d${name}`, [xs[name], ds[name]], [xs.q, ds.q]);
}

const repeated = (call) => async (count) => {
  for (let i = 0; i < count; i++) call();
  await sync();
};

/** The ceiling: square products, measured anew beside every case. */
const a = ones([matmulSize, matmulSize]);
async function matmulGflops() {
  const { best } = await time(
    repeated(() => scope(() => void matmul(a, a))),
    { samples, sampleMs },
  );
  return (2 * matmulSize ** 3) / best / 1e9;
}

for (const given of cases) {
  const shape = { softcap: 0, documents: 1, ...given };
  const { B, T, S, H, K, D, w1, w2, kind, name } = shape;
  let pairs = 0;
  for (let i = S - T; i < S; i++) pairs += keysSeen(i, shape) * (kind === "simplicial" ? seen(i, w2) : 1);
  const tensors = prepare(shape);
  check(shape, tensors);
  const ceiling = await matmulGflops();
  const forward = await time(repeated(tensors.forward), { samples, sampleMs });
  const backward = await time(repeated(tensors.backward), { samples, sampleMs });
  const unit = (D * H * B * pairs) / 1e9;
  emit({
    name,
    isa,
    threads,
    shape: { kind, B, T, S, H, K, D, w1, w2, softcap: shape.softcap, documents: shape.documents },
    pairs: pairs * B,
    matmulGflops: Math.max(ceiling, await matmulGflops()),
    forwardGflops: (4 * unit) / forward.best,
    backwardGflops: (10 * unit) / backward.best,
    forwardMs: 1e3 * forward.best,
    backwardMs: 1e3 * backward.best,
    // Each key and value once: what decoding has to read.
    forwardGBs: (2 * B * S * K * D * 4) / forward.best / 1e9,
    medianForwardMs: 1e3 * forward.median,
    medianBackwardMs: 1e3 * backward.median,
    samples,
  });
  for (const tensor of [
    ...Object.values(tensors.x),
    ...Object.values(tensors.d),
    ...tensors.masks,
    tensors.out,
    tensors.dout,
  ])
    tensor.dispose();
}
