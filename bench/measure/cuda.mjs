/** What the CUDA engine does, task by task: `{ task, smoke }`. Every result is checked to be finite before it is timed; correctness has tests of its own. */
import { Transformer } from "@llmeff/models";
import { engine } from "@llmeff/native";
import { AdamW, Sonew } from "@llmeff/optim";
import {
  captureStep,
  copyInto,
  matmul,
  memory,
  profile,
  randomNormal,
  resetPeakMemory,
  scope,
  tensor,
  valueAndGrad,
  zeros,
} from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { medianMs, wallMs } from "../lib/gpu.mjs";
import { simplicialPairs, simplicialShapes } from "../lib/simplicial.mjs";

const { task, smoke } = childOptions();
const repeats = smoke ? 2 : 20;

let stream = 0;
const normal = (shape, dtype = "bfloat16") =>
  scope(() => randomNormal({ seed: 1, stream: stream++ }, shape).astype(dtype));

function checkFinite(what, x) {
  const sum = scope(() => x.astype("float32").sum().itemSync());
  expect(Number.isFinite(sum), `${what} is not finite`);
}

async function ceilings() {
  const n = smoke ? 512 : 8192;
  const [a, b] = [normal([n, n]), normal([n, n])];
  emit({ name: "matmul bf16", n, tflops: (2 * n ** 3) / (await medianMs(() => matmul(a, b), { repeats })) / 1e9 });
  const size = smoke ? 2 ** 20 : 2 ** 30;
  const [from, to] = [zeros([size]), zeros([size])];
  emit({ name: "copy", size, terabytes: (8 * size) / (await medianMs(() => copyInto(to, from), { repeats })) / 1e9 });
}

/** FLOPs: 4·D a query head and pair of positions forward, 10·D backward. */
async function dotProduct() {
  const shapes = smoke
    ? [[1, 256, 2, 64]]
    : [
        [1, 16384, 16, 128],
        [32, 1024, 12, 64],
        [64, 512, 4, 64],
      ];
  for (const [B, T, H, D] of shapes) {
    const [q, k, v, dout] = Array.from({ length: 4 }, () => normal([B, T, H, D]));
    const [o, dq, dk, dv] = Array.from({ length: 4 }, () => normal([B, T, H, D]));
    const lse = zeros([B, H, T]);
    const { op } = engine();
    const mask = [null, null, null, 1 / Math.sqrt(D), true, 0, 0, 0];
    const run = () => op.attention(q.handle, k.handle, v.handle, ...mask, o.handle, lse.handle);
    const forward = await medianMs(run, { repeats });
    const tensors = [dout, null, q, k, v, o, lse].map((x) => x?.handle);
    const back = () => op.attentionGrad(...tensors, ...mask, null, null, false, dq.handle, dk.handle, dv.handle);
    const backward = await medianMs(back, { repeats });
    for (const x of [o, dq, dk, dv]) checkFinite("attention", x);
    const flops = (4 * D * H * B * T * T) / 2;
    const shape = `B ${B}, T ${T}, H ${H}, D ${D}`;
    emit({ name: "attention", shape, forward: flops / forward / 1e9, backward: (2.5 * flops) / backward / 1e9 });
    for (const x of [q, k, v, dout, o, dq, dk, dv, lse]) x.dispose();
  }
}

/** FLOPs: 4·D a query head and pair forward, 10·D backward (the least work). */
async function simplicial() {
  const D = 128;
  for (const { N, Hq, Hkv, w1, w2, both } of simplicialShapes(smoke)) {
    const [q, dout, o, dq] = Array.from({ length: 4 }, () => normal([1, N, Hq, D]));
    const [k1, k2, v1, v2, dk1, dk2, dv1, dv2] = Array.from({ length: 8 }, () => normal([1, N, Hkv, D]));
    const lse = zeros([1, Hq, N]);
    const { op } = engine();
    const handles = (...tensors) => tensors.map((x) => x.handle);
    const options = [1 / Math.sqrt(D), true, w1, w2, 0, 0, 0, 0, 0, false];
    const few = smoke ? 2 : 5;
    const run = () => op.simplicialAttention(...handles(q, k1, k2, v1, v2), ...options, ...handles(o, lse));
    const flops = 4 * D * Hq * simplicialPairs(N, w1, w2);
    const shape = `N ${N}, Hq ${Hq}, Hkv ${Hkv}, D ${D}, ${w1}×${w2}`;
    const forward = flops / (await medianMs(run, { repeats: few, warmup: 1 })) / 1e9;
    checkFinite("2-simplicial attention", o);
    let backward = null;
    if (both) {
      const gradients = handles(dq, dk1, dk2, dv1, dv2);
      const back = () =>
        op.simplicialAttentionGrad(...handles(dout, q, k1, k2, v1, v2, o, lse), ...options, ...gradients);
      backward = (2.5 * flops) / (await medianMs(back, { repeats: few, warmup: 1 })) / 1e9;
      for (const x of [dq, dk1, dk2, dv1, dv2]) checkFinite("the gradient of 2-simplicial attention", x);
    }
    emit({ name: "2-simplicial attention", shape, forward, backward });
    for (const x of [q, dout, o, dq, k1, k2, v1, v2, dk1, dk2, dv1, dv2, lse]) x.dispose();
  }
}

async function optimizers() {
  const [count, size] = smoke ? [2, 2 ** 16] : [60, 2 ** 24];
  const names = Array.from({ length: count }, (_, i) => `p${i}`);
  const make = (scale) => Object.fromEntries(names.map((name) => [name, normal([size], "float32").mul(scale)]));
  const [params, grads] = [make(1), make(0.01)];
  for (const [name, bytes, optimizer] of [
    ["AdamW", 28, () => new AdamW(params, { learningRate: 1e-4 })],
    ["SONew, Adam graft", 44, () => new Sonew(params, { learningRate: 1e-4 })],
    ...[0, 1, 4, 10].flatMap((band) =>
      (band === 1 ? ["none"] : ["none", "adam"]).map((graft) => [
        `SONew, band ${band}${graft === "adam" ? ", Adam graft" : ""}`,
        4 * ((graft === "adam" ? 9 : 7) + 2 * band),
        () => new Sonew(params, { learningRate: graft === "adam" ? 1e-4 : 1e-9, eps: 1e-6, band, graft }),
      ]),
    ),
    [
      "SONew, bfloat16 state, Adam graft",
      32,
      () => new Sonew(params, { learningRate: 1e-4, eps: 1e-6, stateDtype: "bfloat16" }),
    ],
  ]) {
    const made = optimizer();
    const ms = await medianMs(() => made.step(grads), { repeats });
    checkFinite(name, params.p0);
    const parameters = count * size;
    emit({
      name,
      bytes,
      parameters,
      ms,
      psPerParameter: (1e9 * ms) / parameters,
      terabytes: (bytes * parameters) / ms / 1e9,
    });
    made.dispose();
  }
}

const models = smoke
  ? [{ name: "tiny", layers: 1, d: 64, heads: 2, ffn: 128, vocabulary: 256, B: 2, T: 64 }]
  : [
      { name: "6 layers, small batch", layers: 6, d: 384, heads: 6, ffn: 1024, vocabulary: 8192, B: 2, T: 256 },
      { name: "4 layers", layers: 4, d: 256, heads: 4, ffn: 688, vocabulary: 8192, B: 64, T: 512, peers: true },
      { name: "12 layers", layers: 12, d: 768, heads: 12, ffn: 2048, vocabulary: 50304, B: 32, T: 1024, peers: true },
      {
        name: "12 layers, every fourth 2-simplicial",
        layers: 12,
        d: 768,
        heads: 12,
        ffn: 2048,
        vocabulary: 50304,
        B: 32,
        T: 1024,
        pairs: true,
      },
    ];

/** bfloat16 parameters with float32 masters in AdamW; tokens and targets at random. */
async function languageModel() {
  for (const { name, layers, d, heads, ffn, vocabulary, B, T, pairs = false, peers = false } of models) {
    const dot = { kind: "dot" };
    const model = new Transformer({
      vocabSize: vocabulary,
      dModel: d,
      numLayers: layers,
      numHeads: heads,
      ffnDim: ffn,
      maxSeqLen: T,
      ...(pairs ? { attention: [dot, dot, dot, { kind: "simplicial", w1: 512, w2: 32, numKvHeads: 1 }] } : {}),
    });
    const params = model.init(0, { dtype: "bfloat16" });
    const optimizer = new AdamW(params, { learningRate: 3e-4, weightDecay: 0.01 });
    const ids = (seed) => {
      const shape = [B, T];
      const data = Int32Array.from({ length: B * T }, (_, i) => (Math.imul(i + seed, 2654435761) >>> 8) % vocabulary);
      return tensor(data, { shape });
    };
    const batch = { tokens: ids(1), targets: ids(77) };
    const step = (of = batch) => {
      const { value, grads } = valueAndGrad((p) => model.loss(p, of), params);
      optimizer.step(grads);
      return value;
    };
    const first = scope(() => step().itemSync());
    resetPeakMemory();
    const few = { repeats: pairs ? 5 : repeats, warmup: pairs ? 2 : 5 };
    const ms = await medianMs(step, few);
    const wall = await wallMs(step, few);
    const peakGiB = memory().peakBytes / 2 ** 30;
    const captured = captureStep(step, { inputs: batch, warmup: 1 });
    const msCaptured = await medianMs(() => captured(batch), few);
    const wallCaptured = await wallMs(() => captured(batch), few);
    captured.dispose();
    const last = scope(() => step().itemSync());
    expect(
      last < first && Math.abs(first - Math.log(vocabulary)) < 0.5,
      `${name}: the loss went from ${first} to ${last}`,
    );
    const { ops } = profile(() => scope(() => void step()));
    const all = ops.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
    const shares = Object.fromEntries(ops.map(({ op, milliseconds }) => [op, milliseconds / all]));
    emit({
      name,
      shape: `d ${d}, FFN ${ffn}, vocabulary ${vocabulary}, B ${B}, T ${T}`,
      ms,
      wall,
      captured: { ms: msCaptured, wall: wallCaptured },
      tokens: ((B * T) / ms) * 1e3,
      peakGiB,
      first,
      last,
      shares,
      peers,
    });
    optimizer.dispose();
    for (const x of Object.values(params)) x.dispose();
  }
}

await { ceilings, attention: dotProduct, simplicial, optimizers, lm: languageModel }[task]();
