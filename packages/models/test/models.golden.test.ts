/**
 * The cases of models.json that a whole model or its sampling must reproduce. `packages/tensor/test/models.golden.test.ts` runs those of single
 * ops and lists where all others are.
 */
import { readFileSync } from "node:fs";
import { globalNorm, scope, tensor, valueAndGrad } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import { parameterName } from "../../../test/golden-parameters.js";
import {
  countActiveParameters,
  countParameters,
  drawToken,
  kvCacheBytes,
  resolveConfig,
  resolveSampling,
  Transformer,
  tokenProbabilities,
  trainingFlopsPerToken,
} from "../src/index.js";

interface Values {
  shape: number[];
  data: number[];
}

/** Scores before `softcap · tanh(scores / softcap)`; a softcap of 0 is none. */
function uncapped(scores: ArrayLike<number>, softcap: number): number[] {
  return Array.from(scores, (z) => (softcap > 0 ? softcap * Math.atanh(z / softcap) : z));
}

function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    expect(difference, `element ${i}: ${actual[i]} against ${expected[i]}`).toBeLessThanOrEqual(
      tolerance * (1 + Math.abs(expected[i]!)),
    );
  }
}

describeGolden("models.json", (path) => {
  // biome-ignore lint/suspicious/noExplicitAny: the cases differ in form
  const cases: any[] = JSON.parse(readFileSync(path, "utf8")).cases;
  const ofOp = (op: string) => cases.filter((c) => c.op === op);

  it("runs every case of whole models", () => {
    const ids = cases.filter(({ op }) => /^(sampling|accounting|train)/.test(op)).map(({ id }) => id);
    const run = ["sampling", "accounting", "accounting_gpt2", "train_steps"].flatMap(ofOp).map(({ id }) => id);
    expect(ids.filter((id) => !run.includes(id))).toEqual([]);
  });

  it.each(ofOp("sampling").map((c) => [c.id, c]))("%s", (_id, { params, inputs, outputs, tol }) => {
    const options = resolveSampling({
      ...(params.rep_penalty === undefined ? {} : { repetitionPenalty: params.rep_penalty }),
      ...(params.temperature === undefined ? {} : { temperature: params.temperature }),
      ...(params.top_k === undefined ? {} : { topK: params.top_k }),
      ...(params.top_p === undefined ? {} : { topP: params.top_p }),
      ...(params.min_p === undefined ? {} : { minP: params.min_p }),
    });
    const probabilities = tokenProbabilities(inputs.logits.data, options, { prompt: new Set<number>(inputs.prev) });
    close(probabilities, outputs.probs.data, tol.f64);
    expect([...probabilities.keys()].filter((id) => probabilities[id]! > 0)).toEqual(outputs.kept);
    expect(inputs.u.data.map((u: number) => drawToken(probabilities, u))).toEqual(outputs.draws);
  });

  const dimensions = ["V", "d", "L", "H", "G", "D", "F", "tied", "qk_norm", "E", "k"];
  const counted = ofOp("accounting").flatMap((c) =>
    c.outputs.rows.map((row: { name: string }) => ({ ...row, id: `${c.id} ${row.name}` })),
  );
  it.each(counted.map((row) => [row.id, row]))("%s", (_id, row) => {
    expect(
      Object.keys(row.dims).filter((name) => !dimensions.includes(name)),
      "dimensions unknown here",
    ).toEqual([]);
    const { V, d, L, H, G, D, F, tied, qk_norm = false, E, k } = row.dims;
    const config = resolveConfig({
      vocabSize: V,
      dModel: d,
      numLayers: L,
      numHeads: H,
      numKvHeads: G,
      headDim: D,
      ffnDim: F,
      tieEmbeddings: tied,
      qkNorm: qk_norm,
      maxSeqLen: 4096,
      ...(E === undefined ? {} : { experts: { numExperts: E, topK: k } }),
    });
    expect(countParameters(config)).toBe(row.params);
    expect(countActiveParameters(config)).toBe(row.active);
    expect(trainingFlopsPerToken(config, 4096, { causal: false }).total).toBe(row.flops_per_token_T4096);
    expect(kvCacheBytes(config, 4096)).toBe(row.kv_cache_bytes_T4096_B1_bf16);
  });

  it.each(ofOp("accounting_gpt2").map((c) => [c.id, c]))("%s", (_id, { params: { V, T, d, L }, outputs }) => {
    const config = resolveConfig({
      vocabSize: V,
      dModel: d,
      numLayers: L,
      numHeads: d / 64,
      ffnDim: 4 * d,
      maxSeqLen: T,
      positions: "learned",
      norm: "layer",
      feedForward: "gelu",
      feedForwardBias: true,
      attentionBias: "all",
      tieEmbeddings: true,
    });
    expect(countParameters(config)).toBe(outputs.params);
  });

  it.each(ofOp("train_steps").map((c) => [c.id, c]))(
    "%s: scores, loss and gradient norm of the first step",
    (_id, { params, inputs, outputs, tol }) => {
      const { cfg } = params;
      expect(cfg.window, "windows are not run here").toBe(null);
      const shapes = inputs.params as Record<string, Values>;
      const model = new Transformer({
        vocabSize: shapes.embed!.shape[0]!,
        dModel: shapes.embed!.shape[1]!,
        numLayers: cfg.layers,
        numHeads: cfg.H,
        numKvHeads: cfg.G,
        headDim: cfg.D,
        ffnDim: shapes["l0.wg"]!.shape[0]!,
        maxSeqLen: 16,
        normEps: cfg.eps,
        ropeBase: cfg.theta,
        tieEmbeddings: params.tied,
        finalSoftcap: cfg.final_softcap ?? 0,
        attentionSoftcap: cfg.softcap ?? 0,
      });
      for (const dtype of ["float64", "float32"] as const) {
        const tolerance = dtype === "float64" ? tol.f64 : tol.f32;
        const weights = Object.fromEntries(
          Object.entries(shapes).map(([name, { shape, data }]) => [
            parameterName(name),
            tensor(Float64Array.from(data), { shape, dtype }),
          ]),
        );
        const ids = ({ shape, data }: Values) => tensor(Int32Array.from(data), { shape });
        const masks = inputs.doc_ids === null ? {} : { documents: ids(inputs.doc_ids) };
        const batch = { tokens: ids(inputs.tokens[0]), targets: ids(inputs.labels[0]), ...masks };
        const first = outputs.steps[0];
        close(
          // The file's scores are those before the softcap, which is monotonous: undone here.
          scope(() =>
            uncapped(model.logits(weights, batch.tokens, undefined, masks).dataSync(), model.config.finalSoftcap),
          ),
          first.logits.data,
          tolerance,
        );
        const { value, grads } = valueAndGrad((p) => model.lossParts(p, batch, { zLoss: params.z }).loss, weights);
        close([value.itemSync()], [first.loss], tolerance);
        close([globalNorm(Object.values(grads)).itemSync()], [first.grad_norm], tolerance);
      }
    },
  );
});
