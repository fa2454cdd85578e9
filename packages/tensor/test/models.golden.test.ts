import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import {
  attention,
  attentionWithLse,
  crossEntropyParts,
  linear,
  linearCrossEntropyParts,
  mergeAttention,
  type RopeScaling,
  rmsNorm,
  rope,
  ropeFrequencies,
  ropeTables,
  scope,
  swiglu,
  type Tensor,
  tensor,
  valueAndGrad,
  zeros,
} from "../src/index.js";
import { expectClose, type FloatDType, floatDTypes } from "./compare.js";

/** Arrays of the file; infinities are strings. */
interface GoldenArray {
  shape: number[];
  data: (number | "inf" | "-inf")[];
}

// biome-ignore lint/suspicious/noExplicitAny: cases differ in form from op to op; each runner knows its own
type Case = { id: string; op: string; params: any; inputs: any; outputs: any; tol: { f64: number; f32: number } };

/** The cases that don't run here, each by its id, with the place where it runs or what it waits for. */
const elsewhere: readonly [reason: string, ids: readonly string[]][] = [
  [
    "run by packages/models/test/models.golden.test.ts",
    [
      "sampling/0",
      "sampling/1",
      "sampling/2",
      "sampling/3",
      "sampling/4",
      "sampling/5",
      "sampling/6",
      "sampling/7",
      "sampling/8",
    ],
  ],
  ["run by packages/models/test/models.golden.test.ts", ["accounting/llama_like", "accounting/gpt2"]],
  [
    "run by packages/models/test/models.golden.test.ts (first step) and packages/train/test/models.golden.test.ts (whole trajectory)",
    ["train/tied_plain", "train/untied_docs_z"],
  ],
  [
    "run by packages/optim, beside its schedules",
    ["lr/cosine_", "lr/linear_", "lr/wsd_linear", "lr/wsd_sqrt", "lr/wsd_cosine", "lr/rsqrt_"],
  ],
  ["run by packages/data/test/models.golden.test.ts", ["packing/bins"]],
  [
    "run by packages/distill/test/models.golden.test.ts",
    [
      "kd/soft_ce",
      "kd/soft_ce_teacher_tau",
      "kd/forward_kl",
      "kd/reverse_kl",
      "kd/jsd_half",
      "kd/gjsd",
      "kd_topk/renorm_tau1.0",
      "kd_topk/renorm_tau0.5",
      "kd_topk/naive_tau1.0",
      "kd_topk/tail_tau1.0",
      "kd_topk/restrict_tau1.0",
      "kd_sampled",
      "salt/loss",
      "salt/omega_schedule",
      "salt/ds_select",
      "codistill",
      "kd_cache/quant",
      "kd_cache/file",
    ],
  ],
  [
    "run by packages/models/test/moe.golden.test.ts",
    [
      "moe/softmax_renorm_capacity",
      "moe/switch_top1_capacity",
      "moe/dropless_no_renorm",
      "moe/sigmoid_bias_auxfree",
      "moe/expert_choice",
    ],
  ],
  [
    "run by packages/data/test/models.golden.test.ts",
    [
      "ul2/counts_20",
      "ul2/counts_128",
      "ul2/counts_512",
      "ul2/counts_1280",
      "ul2/corrupt_0_R",
      "ul2/corrupt_1_R",
      "ul2/corrupt_2_S",
      "ul2/corrupt_3_X",
      "ul2/corrupt_4_X",
      "ul2/corrupt_5_X",
      "ul2/corrupt_6_X",
    ],
  ],
];

function values({ data }: GoldenArray): number[] {
  return data.map((x) =>
    typeof x === "number" ? x : x === "inf" ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY,
  );
}

function toTensor(array: GoldenArray, dtype: FloatDType): Tensor {
  return tensor(Float64Array.from(values(array)), { shape: array.shape, dtype });
}

/** The file's comparison: |a − b| ≤ tol · (1 + |b|). */
function compare(
  golden: Case,
  dtype: FloatDType,
  label: string,
  actual: Tensor | ArrayLike<number>,
  expected: GoldenArray | number,
): void {
  const tol = dtype === "float64" ? golden.tol.f64 : golden.tol.f32;
  const got = "dataSync" in actual ? actual.dataSync() : actual;
  expectClose(
    got,
    typeof expected === "number" ? [expected] : values(expected),
    { atol: tol, rtol: tol },
    `${golden.id} ${dtype} ${label}`,
  );
}

/** Outputs and gradients of `compute` for the upstream gradient `dout`. */
function withUpstream<P extends Record<string, Tensor>>(params: P, dout: Tensor, compute: (params: P) => Tensor) {
  const { aux, grads } = valueAndGrad((p: P) => {
    const out = compute(p);
    return { loss: out.mul(dout).sum(), aux: out };
  }, params);
  return { out: aux as Tensor, grads };
}

type Runner = (golden: Case, dtype: FloatDType) => void;

const rmsnorm: Runner = (golden, dtype) => {
  const { inputs, outputs, params } = golden;
  const [x, w, dy] = [inputs.x, inputs.w, inputs.dy].map((a) => toTensor(a, dtype)) as [Tensor, Tensor, Tensor];
  const { out, grads } = withUpstream({ x, w }, dy, (p) =>
    rmsNorm(p.x, p.w, { eps: params.eps, plusOne: params.plus_one }),
  );
  compare(golden, dtype, "y", out, outputs.y);
  compare(golden, dtype, "dx", grads.x, outputs.dx);
  compare(golden, dtype, "dw", grads.w, outputs.dw);
};

/** The file's scaling in the words of `ropeFrequencies`. */
function ropeScaling({ scaling, max_position_embeddings: maxPositions }: Case["params"]): RopeScaling | undefined {
  const { rope_type: type, factor, original_max_position_embeddings: originalLength } = scaling;
  switch (type) {
    case "default":
      return undefined;
    case "dynamic":
      return { type, factor, originalLength: maxPositions };
    case "llama3":
      return {
        type,
        factor,
        originalLength,
        lowFrequencyFactor: scaling.low_freq_factor,
        highFrequencyFactor: scaling.high_freq_factor,
      };
    case "yarn":
      return {
        type,
        factor,
        originalLength,
        betaFast: scaling.beta_fast,
        betaSlow: scaling.beta_slow,
        attentionFactor: scaling.attention_factor,
        mscale: scaling.mscale,
        mscaleAllDim: scaling.mscale_all_dim,
      };
    default:
      return { type, factor };
  }
}

const rotaryFrequencies: Runner = (golden, dtype) => {
  const { params, outputs } = golden;
  const scaling = ropeScaling(params);
  const options = { base: params.theta, ...(scaling !== undefined && { scaling }) };
  const { frequencies, attentionFactor } = ropeFrequencies(params.dim, { ...options, length: params.seq_len });
  compare(golden, "float64", "inv_freq", frequencies, outputs.inv_freq);
  compare(golden, "float64", "attention factor", [attentionFactor], outputs.attention_factor);
  // The tables are the factor times cosines and sines of these angles.
  const { cos, sin } = ropeTables(params.seq_len, params.dim, { ...options, dtype });
  const last = (params.seq_len - 1) * frequencies.length;
  for (const [name, table, f] of [
    ["cos", cos, Math.cos],
    ["sin", sin, Math.sin],
  ] as const) {
    const want = Array.from(frequencies, (frequency) => attentionFactor * f((params.seq_len - 1) * frequency));
    const shape = [frequencies.length];
    compare(golden, dtype, name, table.dataSync().subarray(last), { shape, data: want });
  }
};

const ropeApply: Runner = (golden, dtype) => {
  const { inputs, outputs, params } = golden;
  const [x, dy] = [toTensor(inputs.x, dtype), toTensor(inputs.dy, dtype)];
  const positions: number[] = inputs.positions;
  const table = ropeTables(Math.max(...positions) + 1, x.shape[3]!, { base: params.theta, dtype });
  const pick = (whole: Tensor) =>
    tensor(Float64Array.from(positions.flatMap((p) => [...whole.slice(0, p, p + 1).dataSync()])), {
      shape: [positions.length, whole.shape[1]!],
      dtype,
    });
  const [cos, sin] = [pick(table.cos), pick(table.sin)];
  const { out, grads } = withUpstream({ x }, dy, (p) =>
    rope(p.x, cos, sin, { interleaved: params.layout === "interleaved" }),
  );
  compare(golden, dtype, "y", out, outputs.y);
  compare(golden, dtype, "dx", grads.x, outputs.dx);
};

const feedForward: Runner = (golden, dtype) => {
  const { inputs, outputs } = golden;
  const t = (name: string) => toTensor(inputs[name], dtype);
  const params = { x: t("x"), wg: t("wg"), wu: t("wu"), wd: t("wd") };
  const { out, grads } = withUpstream(params, t("dy"), (p) =>
    linear(swiglu(linear(p.x, p.wg), linear(p.x, p.wu)), p.wd),
  );
  compare(golden, dtype, "y", out, outputs.y);
  for (const [name, grad] of Object.entries(grads)) compare(golden, dtype, `d${name}`, grad, outputs[`d${name}`]);
};

const dotAttention: Runner = (golden, dtype) => {
  const { inputs, outputs, params } = golden;
  const t = (name: string) => toTensor(inputs[name], dtype);
  const { causal = true, window, prefix, q_doc, k_doc = q_doc, ...otherMasks } = params.mask;
  expect(Object.keys(otherMasks), "masks that attention doesn't have").toEqual([]);
  const { scale, softcap = 0 } = params;
  const row = (ids: number[]) => tensor(Int32Array.from(ids), { shape: [1, ids.length] });
  const options = {
    scale,
    causal,
    softcap,
    ...(window !== undefined && { window }),
    ...(prefix !== undefined && { prefix }),
    ...(q_doc !== undefined && { documents: { q: row(q_doc), k: row(k_doc) } }),
  };
  const qkv = { q: t("q"), k: t("k"), v: t("v") };
  const { out, grads } = withUpstream(qkv, t("do"), ({ q, k, v }) => attention(q, k, v, options));
  compare(golden, dtype, "o", out, outputs.o);
  for (const [name, grad] of Object.entries(grads)) compare(golden, dtype, `d${name}`, grad, outputs[`d${name}`]);
  compare(golden, dtype, "lse", attentionWithLse(qkv.q, qkv.k, qkv.v, options).lse, outputs.lse);
};

/** Attention over blocks of a cache, each alone: keys of a block that begins at c are at positions c…, so the query offset within it is `q_offset − c`. */
const attentionMerge: Runner = (golden, dtype) => {
  const { inputs, outputs, params } = golden;
  const [q, k, v] = ["q", "k", "v"].map((name) => toTensor(inputs[name], dtype)) as [Tensor, Tensor, Tensor];
  compare(golden, dtype, "o", attention(q, k, v, { qOffset: params.q_offset }), outputs.o);
  const cuts: number[] = params.block_cuts;
  const parts = cuts.slice(1).map((end, b) => {
    const start = cuts[b]!;
    return attentionWithLse(q, k.slice(1, start, end), v.slice(1, start, end), { qOffset: params.q_offset - start });
  });
  for (const [b, { out, lse }] of parts.entries()) {
    compare(golden, dtype, `partial_o[${b}]`, out, outputs.partial_o[b]);
    compare(golden, dtype, `partial_lse[${b}]`, lse, outputs.partial_lse[b]);
  }
  const merged = mergeAttention(parts);
  compare(golden, dtype, "merged o", merged.out, outputs.o);
  compare(golden, dtype, "merged lse", merged.lse, outputs.lse);
};

/** A packed row's mask, read off attention: with the identity as values and equal logits, a query's output is uniform over the keys it sees. */
const packedRow: Runner = (golden, dtype) => {
  const { outputs } = golden;
  const ids: number[] = outputs.doc_ids;
  const T = ids.length;
  const documents = tensor(Int32Array.from(ids), { shape: [1, T] });
  const identity = Float64Array.from({ length: T * T }, (_, i) => Number(i % (T + 1) === 0));
  const q = zeros([1, T, 1, 1], { dtype });
  const out = attention(q, q, tensor(identity, { shape: [1, T, 1, T], dtype }), { documents });
  compare(
    golden,
    dtype,
    "mask",
    Array.from(out.dataSync(), (weight) => Number(weight > 0)),
    outputs.mask,
  );
};

/** A pre-norm Transformer block of the ops: attention with rotary positions and optionally normalised queries and keys, then SwiGLU. */
const llamaBlock: Runner = (golden, dtype) => {
  const { inputs, outputs, params } = golden;
  const { H, G, D, eps, layout, softcap, window, theta } = params;
  const x = toTensor(inputs.x, dtype);
  const [B, T, C] = x.shape as [number, number, number];
  const { cos, sin } = ropeTables(T, D, { base: theta, dtype });
  const weights = Object.fromEntries(
    Object.entries(inputs.params).map(([name, a]) => [name, toTensor(a as GoldenArray, dtype)]),
  );
  const { out, grads } = withUpstream({ ...weights, x } as Record<string, Tensor>, toTensor(inputs.dy, dtype), (p) => {
    const heads = (y: Tensor, count: number, norm: Tensor | undefined) => {
      const split = y.reshape([B, T, count, D]);
      return rope(norm ? rmsNorm(split, norm, { eps }) : split, cos, sin, { interleaved: layout === "interleaved" });
    };
    const y = rmsNorm(p.x!, p.ln1!, { eps });
    const q = heads(linear(y, p.wq!), H, p.qn);
    const k = heads(linear(y, p.wk!), G, p.kn);
    const v = linear(y, p.wv!).reshape([B, T, G, D]);
    const mixed = attention(q, k, v, { softcap: softcap ?? 0, ...(window && { window }) });
    const x1 = p.x!.add(linear(mixed.reshape([B, T, H * D]), p.wo!));
    const z = rmsNorm(x1, p.ln2!, { eps });
    return x1.add(linear(swiglu(linear(z, p.wg!), linear(z, p.wu!)), p.wd!));
  });
  expect(out.shape).toEqual([B, T, C]);
  compare(golden, dtype, "y", out, outputs.y);
  compare(golden, dtype, "dx", grads.x!, outputs.dx);
  for (const [name, expected] of Object.entries(outputs.grads))
    compare(golden, dtype, `d${name}`, grads[name]!, expected as GoldenArray);
};

function crossEntropyOptions(params: Case["params"]) {
  expect(params.reduction).toBe("mean");
  const { ignore_index: ignoreIndex, smoothing: labelSmoothing = 0, z: zLoss = 0, softcap = 0 } = params;
  return { ignoreIndex, labelSmoothing, zLoss, softcap };
}

const loss: Runner = (golden, dtype) => {
  const { inputs, outputs, params } = golden;
  const logits = toTensor(inputs.logits, dtype);
  const targets = tensor(Int32Array.from(inputs.labels.data), { shape: inputs.labels.shape });
  const options = crossEntropyOptions(params);
  const plain = valueAndGrad((z: Tensor) => {
    const { loss, ...aux } = crossEntropyParts(z, targets, options);
    return { loss, aux };
  }, logits);
  // The fused head with logits = identity · logits: its hidden states are rows of the identity, its weight the transposed logits.
  const n = logits.shape[0]!;
  const identity = tensor(
    Float64Array.from({ length: n * n }, (_, i) => Number(i % (n + 1) === 0)),
    { shape: [n, n], dtype },
  );
  const fused = valueAndGrad((weight: Tensor) => {
    const { loss, ...aux } = linearCrossEntropyParts(identity, weight, targets, options);
    return { loss, aux };
  }, logits.T.clone());
  for (const [how, { value, aux, grads }] of [
    ["plain", plain],
    ["fused", { ...fused, grads: fused.grads.T }],
  ] as const) {
    compare(golden, dtype, `${how} loss`, value, outputs.loss);
    compare(golden, dtype, `${how} ce`, aux.ce, outputs.ce);
    compare(golden, dtype, `${how} zloss`, aux.zLoss, outputs.zloss);
    compare(golden, dtype, `${how} per_token`, aux.perToken, outputs.per_token);
    compare(golden, dtype, `${how} dlogits`, grads, outputs.dlogits);
    expect(aux.count.itemSync()).toBe(outputs.n_valid);
  }
};

const runners: Record<string, Runner> = {
  rmsnorm,
  rope_inv_freq: rotaryFrequencies,
  rope_apply: ropeApply,
  swiglu: feedForward,
  attention: dotAttention,
  attention_merge: attentionMerge,
  packed_row: packedRow,
  llama_block: llamaBlock,
  cross_entropy: loss,
};

describeGolden("models.json", (path) => {
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: Case[] };
  const listed = new Set(elsewhere.flatMap(([, ids]) => ids));
  const mine = cases.filter(({ id }) => !listed.has(id));

  it("has a runner for every case that is not listed as being elsewhere", () => {
    expect(mine.filter(({ op }) => !(op in runners)).map(({ id }) => id)).toEqual([]);
  });

  it("lists no case twice", () => {
    expect(elsewhere.flatMap(([, ids]) => ids)).toHaveLength(listed.size);
  });

  for (const golden of mine.filter(({ op }) => op in runners)) {
    for (const dtype of floatDTypes)
      it(`${golden.id} in ${dtype}`, () => scope(() => runners[golden.op]!(golden, dtype)));
  }
});
