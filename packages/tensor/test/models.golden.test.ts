import { readFileSync } from "node:fs";
import { engine } from "@llmeff/native";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import {
  attention,
  crossEntropyParts,
  linear,
  linearCrossEntropyParts,
  rmsNorm,
  rope,
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
  [
    "dense models are run by packages/models/test/models.golden.test.ts; mixtures of experts are not implemented yet",
    ["accounting/llama_like"],
  ],
  [
    "run by packages/models/test/models.golden.test.ts (first step) and packages/train/test/models.golden.test.ts (whole trajectory)",
    ["train/tied_plain"],
  ],
  [
    "run by packages/optim, beside its schedules",
    ["lr/cosine_", "lr/linear_", "lr/wsd_linear", "lr/wsd_sqrt", "lr/wsd_cosine", "lr/rsqrt_"],
  ],
  [
    "documents within a sequence are not implemented yet",
    ["train/untied_docs_z", "attention/docs", "attention/fully_masked_row", "packing/bins", "packing/masks"],
  ],
  ["prefix masks are not implemented yet", ["attention/prefix_lm"]],
  [
    "scaled rotary frequencies are not implemented yet",
    [
      "rope_freq/1_linear",
      "rope_freq/2_ntk",
      "rope_freq/3_dynamic",
      "rope_freq/4_yarn",
      "rope_freq/5_yarn",
      "rope_freq/6_yarn",
      "rope_freq/7_llama3",
    ],
  ],
  ["GPT-2's feed-forward layers and biases are not implemented yet", ["accounting/gpt2"]],
  [
    "distillation is not implemented yet",
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
    "mixtures of experts are not implemented yet",
    [
      "moe/softmax_renorm_capacity",
      "moe/switch_top1_capacity",
      "moe/dropless_no_renorm",
      "moe/sigmoid_bias_auxfree",
      "moe/expert_choice",
    ],
  ],
  [
    "span corruption is not implemented yet",
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

/** The table's row 1 is the cosine and sine of the frequencies, which are at most 1 radian: their quotient gives them back. */
const ropeFrequencies: Runner = (golden) => {
  const { params, outputs } = golden;
  const { cos, sin } = ropeTables(2, params.dim, { base: params.theta, dtype: "float64" });
  const [c, s] = [cos.slice(0, 1).dataSync(), sin.slice(0, 1).dataSync()];
  compare(
    golden,
    "float64",
    "inv_freq",
    Float64Array.from(c, (_, i) => Math.atan2(s[i]!, c[i]!)),
    outputs.inv_freq,
  );
  expect(outputs.attention_factor).toBe(1);
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

/** The kernel's log-sum-exp, which the public function keeps to itself. */
function attentionWithLse(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  scale: number,
  causal: boolean,
  window: number,
  qOffset: number,
  softcap: number,
) {
  const [B, T, H] = q.shape as [number, number, number];
  const out = zeros([B, T, H, v.shape[3]!], { dtype: q.dtype });
  const lse = zeros([B, H, T], { dtype: q.dtype });
  engine().op.attention(q.handle, k.handle, v.handle, scale, causal, window, qOffset, softcap, out.handle, lse.handle);
  return { out, lse };
}

const dotAttention: Runner = (golden, dtype) => {
  const { inputs, outputs, params } = golden;
  const t = (name: string) => toTensor(inputs[name], dtype);
  const { causal = true, window = 0, ...otherMasks } = params.mask;
  expect(Object.keys(otherMasks), "masks that attention doesn't have").toEqual([]);
  const { scale, softcap = 0 } = params;
  const options = { scale, causal, softcap, ...(window > 0 && { window }) };
  const qkv = { q: t("q"), k: t("k"), v: t("v") };
  const { out, grads } = withUpstream(qkv, t("do"), ({ q, k, v }) => attention(q, k, v, options));
  compare(golden, dtype, "o", out, outputs.o);
  for (const [name, grad] of Object.entries(grads)) compare(golden, dtype, `d${name}`, grad, outputs[`d${name}`]);
  const { lse } = attentionWithLse(qkv.q, qkv.k, qkv.v, scale, causal, window, 0, softcap);
  compare(golden, dtype, "lse", lse, outputs.lse);
};

/**
 * Attention over blocks of a cache, each alone, merged by their log-sum-exps: `o = Σ_b exp(lse_b − lse) o_b`. Keys of a block that begins at
 * c are at positions c…, so the query offset within the block is `q_offset − c`; a block with no key later than the first query is not causal.
 */
const attentionMerge: Runner = (golden, dtype) => {
  const { inputs, outputs, params } = golden;
  const [q, k, v] = ["q", "k", "v"].map((name) => toTensor(inputs[name], dtype)) as [Tensor, Tensor, Tensor];
  const scale = 1 / Math.sqrt(q.shape[3]!);
  compare(golden, dtype, "o", attention(q, k, v, { qOffset: params.q_offset }), outputs.o);
  const cuts: number[] = params.block_cuts;
  const parts = cuts.slice(1).map((end, b) => {
    const start = cuts[b]!;
    return attentionWithLse(
      q,
      k.slice(1, start, end),
      v.slice(1, start, end),
      scale,
      true,
      0,
      params.q_offset - start,
      0,
    );
  });
  for (const [b, { out, lse }] of parts.entries()) {
    compare(golden, dtype, `partial_o[${b}]`, out, outputs.partial_o[b]);
    compare(golden, dtype, `partial_lse[${b}]`, lse, outputs.partial_lse[b]);
  }
  const whole = parts
    .map(({ lse }) => lse.exp())
    .reduce((a, b) => a.add(b))
    .log();
  const weightOf = (lse: Tensor) =>
    lse.sub(whole).exp().transpose(1, 2).reshape([q.shape[0]!, q.shape[1]!, q.shape[2]!, 1]);
  compare(golden, dtype, "merged lse", whole, outputs.lse);
  compare(
    golden,
    dtype,
    "merged o",
    parts.map(({ out, lse }) => out.mul(weightOf(lse))).reduce((a, b) => a.add(b)),
    outputs.o,
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
  rope_inv_freq: ropeFrequencies,
  rope_apply: ropeApply,
  swiglu: feedForward,
  attention: dotAttention,
  attention_merge: attentionMerge,
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
