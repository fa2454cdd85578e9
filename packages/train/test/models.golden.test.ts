/**
 * The training runs of models.json: every step's loss and norm, the scores and gradients that the file has, and the parameters after the last step,
 * by the Transformer of @llmeff/models, AdamW of @llmeff/optim and this package's loop. The averaged parameters (`ema_after`) are left out: the project has no such average.
 */
import { readFileSync } from "node:fs";
import type { Batch } from "@llmeff/data";
import { type TokenBatch, Transformer } from "@llmeff/models";
import { AdamW } from "@llmeff/optim";
import { scope, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import { parameterName } from "../../../test/golden-parameters.js";
import { train } from "../src/index.js";
import { cycle } from "./run.js";
import { disposeTensors } from "./tiny-model.js";

interface Values {
  shape: number[];
  data: number[];
}

interface Step {
  loss: number;
  ce: number;
  grad_norm: number;
  /** Of the first step only. */
  logits?: Values;
  grads?: Record<string, Values>;
}

interface TrainingCase {
  id: string;
  op: string;
  params: {
    cfg: Record<"layers" | "H" | "G" | "D" | "eps" | "theta", number> & {
      softcap: number | null;
      window: number | null;
      final_softcap: number | null;
    };
    hp: { lr: number[]; b1: number; b2: number; eps: number; wd: number; clip: number };
    z: number;
    tied: boolean;
  };
  inputs: { params: Record<string, Values>; tokens: Values[]; labels: Values[]; doc_ids: Values | null };
  outputs: { steps: Step[]; params_after: Record<string, Values> };
  tol: { f64: number; f32: number };
}

function modelOf({ params: { cfg, tied }, inputs }: TrainingCase): Transformer {
  const shapeOf = (name: string) => inputs.params[name]!.shape as [number, number];
  expect(cfg.window).toBe(null);
  return new Transformer({
    vocabSize: shapeOf("embed")[0],
    dModel: shapeOf("embed")[1],
    numLayers: cfg.layers,
    numHeads: cfg.H,
    numKvHeads: cfg.G,
    headDim: cfg.D,
    ffnDim: shapeOf("l0.wg")[0],
    maxSeqLen: 16,
    normEps: cfg.eps,
    ropeBase: cfg.theta,
    tieEmbeddings: tied,
    finalSoftcap: cfg.final_softcap ?? 0,
    attentionSoftcap: cfg.softcap ?? 0,
  });
}

function expectClose(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual.length, what).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    const limit = tolerance * (1 + Math.abs(expected[i]!));
    expect(difference, `${what}[${i}]: ${actual[i]} against ${expected[i]}`).toBeLessThanOrEqual(limit);
  }
}

/** Takes all steps of a case, comparing before the first what the model computes, and after each what the loop tells. */
async function replay(golden: TrainingCase, dtype: "float64" | "float32"): Promise<void> {
  const { inputs, outputs, params: setting } = golden;
  const { hp } = setting;
  const tolerance = dtype === "float64" ? golden.tol.f64 : golden.tol.f32;
  const close = (what: string, actual: ArrayLike<number>, expected: ArrayLike<number>) =>
    expectClose(`${golden.id} ${dtype}, ${what}`, actual, expected, tolerance);
  const model = modelOf(golden);
  const weights = Object.fromEntries(
    Object.entries(inputs.params).map(([name, { shape, data }]) => [
      parameterName(name),
      tensor(Float64Array.from(data), { shape, dtype }),
    ]),
  );
  // Every batch has the same documents in its rows.
  const documents = inputs.doc_ids && tensor(Int32Array.from(inputs.doc_ids.data), { shape: inputs.doc_ids.shape });
  const masks = documents === null ? {} : { documents };
  const lossParts = (p: Record<string, Tensor>, batch: TokenBatch) =>
    model.lossParts(p, { ...batch, ...masks }, { zLoss: setting.z });
  const batches = inputs.tokens.map(({ shape, data }, i): Batch => {
    const [batchSize, seqLen] = shape as [number, number];
    return { tokens: Int32Array.from(data), targets: Int32Array.from(inputs.labels[i]!.data), batchSize, seqLen };
  });

  scope(() => {
    const { tokens, targets, batchSize, seqLen } = batches[0]!;
    const shape = [batchSize, seqLen];
    const batch = { tokens: tensor(tokens, { shape }), targets: tensor(targets, { shape }) };
    const want = outputs.steps[0]!;
    const logits = model.logits(weights, batch.tokens, undefined, masks).dataSync();
    // The file's scores are those before the softcap, which is monotonous: undone here.
    const { finalSoftcap: cap } = model.config;
    close(
      "logits",
      Array.from(logits, (z) => (cap > 0 ? cap * Math.atanh(z / cap) : z)),
      want.logits!.data,
    );
    const { grads } = valueAndGrad((p: Record<string, Tensor>) => lossParts(p, batch).loss, weights);
    expect(Object.keys(want.grads!).sort()).toEqual(Object.keys(inputs.params).sort());
    for (const [name, { data }] of Object.entries(want.grads!)) {
      close(`gradient of ${name}`, grads[parameterName(name)]!.dataSync(), data);
    }
  });

  const crossEntropies: number[] = [];
  const run = train({
    params: weights,
    objective: (p, batch) => {
      const { loss, ce } = lossParts(p, batch);
      crossEntropies.push(ce.itemSync());
      return loss;
    },
    optimizer: new AdamW(weights, {
      learningRate: (step) => hp.lr[step]!,
      beta1: hp.b1,
      beta2: hp.b2,
      eps: hp.eps,
      weightDecay: hp.wd,
      decay: "matrices",
      maxGradNorm: hp.clip,
    }),
    data: cycle(batches),
    steps: hp.lr.length,
  });
  let done = 0;
  for await (const event of run) {
    if (event.type !== "step") continue;
    const want = outputs.steps[done]!;
    close(`step ${event.step}: loss`, [event.loss], [want.loss]);
    close(`step ${event.step}: cross-entropy`, [crossEntropies[done]!], [want.ce]);
    close(`step ${event.step}: norm`, [event.gradNorm!], [want.grad_norm]);
    expect(event.learningRate).toBe(hp.lr[done]);
    done++;
  }
  expect(done).toBe(outputs.steps.length);
  expect(Object.keys(outputs.params_after).sort()).toEqual(Object.keys(inputs.params).sort());
  for (const [name, { data }] of Object.entries(outputs.params_after)) {
    close(`${name} at the end`, weights[parameterName(name)]!.dataSync(), data);
  }
  disposeTensors(weights);
  model.dispose();
}

describeGolden("models.json", (path) => {
  const file = JSON.parse(readFileSync(path, "utf8")) as { cases: TrainingCase[] };
  const cases = file.cases.filter(({ op }) => op === "train_steps");

  it("has training runs", () => expect(cases).not.toEqual([]));

  for (const golden of cases) {
    it(`${golden.id} in float64`, () => replay(golden, "float64"));
    it(`${golden.id} in float32`, () => replay(golden, "float32"));
  }
});
