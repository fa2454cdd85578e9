/** The distillation of models.json, in float64 and float32. */
import { mkdtempSync, readFileSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { selectTop } from "@llmeff/data";
import { scope, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { type ModelsCase as Case, describeGolden } from "../../../test/golden.js";
import {
  type DistillationLossOptions,
  type DistillTarget,
  type Divergence,
  decodeLogProb,
  distillationParts,
  encodeLogProb,
  hardnessOf,
  type OmegaSchedule,
  omegaAt,
  openTeacherCache,
  TeacherCacheWriter,
  tokenStatistics,
} from "../src/index.js";

interface GoldenArray {
  shape: number[];
  data: (number | "-inf")[];
}

type FloatDType = "float32" | "float64";

const numbersOf = ({ data }: GoldenArray) => data.map((x) => (x === "-inf" ? Number.NEGATIVE_INFINITY : x));

function floats(array: GoldenArray, dtype: FloatDType): Tensor {
  return tensor(Float64Array.from(numbersOf(array)), { shape: array.shape }).astype(dtype);
}

const ids = (array: GoldenArray) => tensor(Int32Array.from(numbersOf(array)), { shape: array.shape });
const maskOf = (array: GoldenArray) => ids(array).astype("bool");

/** Fails naming the first value farther than `tol · (1 + |want|)`. */
export function expectWithin(actual: ArrayLike<number>, wanted: readonly number[], tol: number, what: string): void {
  expect(actual.length, `${what}: number of values`).toBe(wanted.length);
  for (const [i, want] of wanted.entries()) {
    if (actual[i] === want) continue;
    expect(Math.abs(actual[i]! - want), `${what}[${i}] ${actual[i]} for ${want}`).toBeLessThanOrEqual(
      tol * (1 + Math.abs(want)),
    );
  }
}

function expectLoss(
  golden: Case,
  dtype: FloatDType,
  student: GoldenArray,
  target: DistillTarget,
  options: DistillationLossOptions,
  wanted: { loss: number; gradient: GoldenArray },
): number[] {
  return scope(() => {
    const { value, grads, aux } = valueAndGrad(
      (logits: Tensor) => {
        const { loss, sums } = distillationParts(logits, target, options);
        return { loss, aux: sums };
      },
      floats(student, dtype),
    );
    const tol = golden.tol[dtype === "float64" ? "f64" : "f32"];
    expectWithin([value.itemSync()], [wanted.loss], tol, "loss");
    expectWithin(grads.dataSync(), numbersOf(wanted.gradient), tol, "gradient");
    return Array.from(aux.dataSync());
  });
}

function divergenceNamed(kind: string, beta: number): Divergence {
  if (kind === "soft_ce") return { kind: "softCrossEntropy" };
  if (kind === "fkl") return { kind: "forwardKl" };
  if (kind === "rkl") return { kind: "reverseKl" };
  if (kind === "jsd") return { kind: "jsd", beta };
  throw new Error(`the file has a divergence that this test doesn't know: ${kind}`);
}

const scheduleNamed: Record<string, (params: Case["params"]) => OmegaSchedule> = {
  step: ({ n_kd }) => ({ kind: "step", steps: n_kd }),
  linear_decay: ({ n_kd }) => ({ kind: "linearDecay", steps: n_kd }),
  linear_ratio: ({ n_kd, n_ramp }) => ({ kind: "linearRatio", steps: n_kd, rampSteps: n_ramp }),
};

/** Cases that are run in both precisions. */
const tensorRunners: Record<string, (golden: Case, dtype: FloatDType) => void> = {
  kd_full(golden, dtype) {
    const { params, inputs, outputs } = golden;
    const options = {
      mask: maskOf(inputs.mask),
      divergence: divergenceNamed(params.kind, params.beta),
      tauStudent: params.tau_student,
      tauTeacher: params.tau_teacher,
    };
    const target = { logits: floats(inputs.teacher, dtype) };
    expectLoss(golden, dtype, inputs.student, target, options, { loss: outputs.loss, gradient: outputs.dstudent });
  },
  kd_topk(golden, dtype) {
    const { params, inputs, outputs } = golden;
    const options = {
      mask: maskOf(inputs.mask),
      mode: params.mode,
      tauStudent: params.tau_student,
      tauTeacher: params.tau_teacher,
    };
    const target = { ids: ids(inputs.teacher_ids), logProbs: floats(inputs.teacher_logprobs, dtype) };
    expectLoss(golden, dtype, inputs.student, target, options, { loss: outputs.loss, gradient: outputs.dstudent });
  },
  kd_sampled(golden, dtype) {
    const { inputs, outputs } = golden;
    const target = { ids: ids(inputs.sample_ids), weights: floats(inputs.weights, dtype) };
    const options = { mask: maskOf(inputs.mask), mode: "sampled" as const };
    expectLoss(golden, dtype, inputs.student, target, options, { loss: outputs.loss, gradient: outputs.dstudent });
  },
  salt_loss(golden, dtype) {
    const { params, inputs, outputs } = golden;
    const options = {
      labels: ids(inputs.labels),
      ceWeight: 1 - params.omega,
      kdWeight: params.omega,
      tauTeacher: params.tau_teacher,
    };
    const target = { logits: floats(inputs.teacher, dtype) };
    const wanted = { loss: outputs.loss, gradient: outputs.dstudent };
    const [ce, kd, , , , count] = expectLoss(golden, dtype, inputs.student, target, options, wanted);
    const tol = golden.tol[dtype === "float64" ? "f64" : "f32"];
    expectWithin([ce! / count!, kd! / count!], [outputs.ce, outputs.kd], tol, "ce and kd");
  },
  codistill(golden, dtype) {
    const { params, inputs, outputs } = golden;
    for (const [own, other] of ["ab", "ba"]) {
      const options = { labels: ids(inputs.labels), ceWeight: 1, kdWeight: params.lam };
      const target = { logits: floats(inputs[other!], dtype) };
      const wanted = { loss: outputs[`loss_${own}`], gradient: outputs[`d${own}`] };
      expectLoss(golden, dtype, inputs[own!], target, options, wanted);
    }
  },
};

/** Cases computed in double on the host. */
const hostRunners: Record<string, (golden: Case) => void | Promise<void>> = {
  async salt_ds({ params, inputs, outputs, tol }) {
    const logits = floats(inputs.teacher_logits, "float64");
    const targets = Int32Array.from(inputs.targets.data);
    const statistics = await tokenStatistics({ logits }, targets, inputs.targets.shape[0]);
    const scores = statistics.map((own) => hardnessOf(own, { kind: "filteredMedian", k: params.k }));
    const wanted = outputs.scores.map((x: number | "-inf") => (x === "-inf" ? Number.NEGATIVE_INFINITY : x));
    expectWithin(scores, wanted, tol.f64, "scores");
    expect(statistics.map(({ ranks }) => ranks.filter((rank) => rank < params.k).length)).toEqual(outputs.kept);
    expect(selectTop(scores, params.take)).toEqual(outputs.selected);
  },
  kd_cache_quant({ params, inputs, outputs, tol }) {
    const codes = numbersOf(inputs.logprobs).map((logProb) => encodeLogProb(logProb, params.lo));
    expect(codes).toEqual(outputs.q.data);
    expectWithin(
      codes.map((code) => decodeLogProb(code, params.lo)),
      outputs.dequant.data,
      tol.f64,
      "dequantised",
    );
  },
  async kd_cache_file({ params, inputs, outputs }) {
    const path = join(mkdtempSync(join(tmpdir(), "llmeff-cache-")), "golden.lkd");
    const [tokenCount] = inputs.ids.shape;
    const { vocab: vocabSize, k, lo, tokenizer_sha256: tokenizerHash } = params;
    await using writer = await TeacherCacheWriter.open(path, {
      vocabSize,
      k,
      lo,
      tokenCount,
      tokenizerHash,
      narrowIds: false,
    });
    const predictions = {
      ids: Int32Array.from(inputs.ids.data),
      logProbs: Float64Array.from(inputs.logprobs.data),
      tailLogProb: Float64Array.from(inputs.tail_logprob.data),
    };
    await writer.append(predictions);
    await writer.finish();
    expect(readFileSync(path).toString("hex")).toBe(outputs.hex);
    expect(statSync(path).size).toBe(outputs.bytes);
    await using cache = await openTeacherCache(path, { vocabSize, tokenCount, tokenizerHash });
    const { ids: read, logProbs, tailLogProb } = await cache.read(0, tokenCount);
    expect([...read]).toEqual(inputs.ids.data);
    // Half a step of the code, and the rounding to float32.
    const error = -lo / 65_535 / 2 + 2 ** -20;
    expectWithin(logProbs!, inputs.logprobs.data, error, "log-probabilities");
    expectWithin(tailLogProb!, inputs.tail_logprob.data, error, "tail");
  },
  salt_omega({ params, inputs, outputs, tol }) {
    for (const [name, wanted] of Object.entries(outputs as Record<string, number[]>)) {
      const schedule = scheduleNamed[name]!(params);
      const values = inputs.steps.map((step: number) => omegaAt(step, params.omega, schedule));
      expectWithin(values, wanted, tol.f64, name);
    }
  },
};

describeGolden("models.json", (path) => {
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: Case[] };
  const own = cases.filter(({ op }) => op in tensorRunners);
  const hosted = cases.filter(({ op }) => op in hostRunners);
  it("has cases of every kind that runs here", () =>
    expect(new Set([...own, ...hosted].map(({ op }) => op))).toEqual(
      new Set([...Object.keys(tensorRunners), ...Object.keys(hostRunners)]),
    ));
  it.each(own.flatMap((golden) => [[golden.id, "float64", golden] as const, [golden.id, "float32", golden] as const]))(
    "%s in %s",
    (_id, dtype, golden) => tensorRunners[golden.op]!(golden, dtype),
  );
  it.each(hosted)("$id", (golden) => hostRunners[golden.op]!(golden));
});
