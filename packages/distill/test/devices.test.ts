/** Everything is computed where the parameters are; on GPUs that are the CPU under other names. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { useFakeGpus } from "../../tensor/test/fake-gpu.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "llmeff-distill-"));
  useFakeGpus({ names: ["A"], problem: "" });
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

async function libraries() {
  const distill = await import("../src/index.js");
  const { Transformer } = await import("@llmeff/models");
  const { AdamW } = await import("@llmeff/optim");
  const { TokenDataset, windowsAt } = await import("@llmeff/data");
  const { train } = await import("@llmeff/train");
  return { ...distill, Transformer, AdamW, TokenDataset, windowsAt, train };
}

const tokens = Uint8Array.from({ length: 200 }, (_, i) => (i * i) % 11);
const sizes = { seqLen: 8, batchSize: 2 };
const identity = { vocabSize: 11, tokenizerHash: "0".repeat(64) };

/** What a device computes, as numbers that must not depend on it. */
async function results(device: "cpu" | "cuda"): Promise<unknown> {
  const lib = await libraries();
  const model = new lib.Transformer({
    vocabSize: 11,
    dModel: 8,
    numLayers: 1,
    numHeads: 2,
    maxSeqLen: 16,
    finalSoftcap: 5,
  });
  const own = lib.tokenModel(model);
  const init = (seed: number) => model.init(seed, { device });
  const teacher = { model: own, params: init(2) };
  const optimizerOf = (params: ReturnType<typeof init>) => new lib.AdamW(params, { learningRate: 1e-2 });
  const data = () => new lib.TokenDataset(tokens, { ...sizes, seed: 1 });
  const path = join(folder, `${device}.lkd`);
  await lib.labelCorpus(path, teacher, tokens, { ...identity, k: 4, contextLength: 12 });
  const drawn = join(folder, `${device}-drawn.lkd`);
  await lib.labelCorpus(drawn, teacher, tokens, { ...identity, k: 4, contextLength: 12, sampled: true });
  await using cache = await lib.openTeacherCache(path, { ...identity, tokenCount: 200 });
  await using draws = await lib.openTeacherCache(drawn, { ...identity, tokenCount: 200 });
  const schedule = { kind: "linearDecay", steps: 3 } as const;

  const losses: number[] = [];
  const run = async (make: (params: ReturnType<typeof init>) => { objective: unknown; data: unknown }) => {
    const params = init(1);
    const options = { params, optimizer: optimizerOf(params), steps: 4, ...make(params) };
    for await (const event of lib.train(options as never)) if (event.type === "step") losses.push(event.loss);
  };
  for (const divergence of ["softCrossEntropy", "jsd", "skewedKl", "totalVariation"] as const) {
    const objective = lib.distill({ student: own, teacher, schedule, divergence: { kind: divergence } });
    await run(() => ({ objective, data: data() }));
    expect((await objective.metrics())?.tokens).toBe(16);
  }
  for (const mode of ["renorm", "tail", "restrict"] as const) {
    const objective = lib.distill({ student: own, cache: true, schedule, mode });
    await run(() => ({ objective, data: lib.withTeacherCache(data(), cache) }));
  }
  const sampled = lib.distill({ student: own, cache: true, schedule, mode: "sampled" });
  await run(() => ({ objective: sampled, data: lib.withTeacherCache(data(), draws) }));
  const always = lib.distill({ student: own, teacher, omega: 1, schedule: { kind: "always" } });
  await run((params) => ({
    objective: always,
    data: lib.writtenBatches(data(), { model, params, share: 1, promptLength: 3 }),
  }));
  await run((params) => {
    const average = new lib.EmaTeacher(params);
    average.update();
    return {
      objective: lib.distill({ student: own, teacher: { model: own, params: average.params }, schedule }),
      data: data(),
    };
  });
  const peers = [1, 2].map((seed) => {
    const params = init(seed);
    return { model: own, params, optimizer: optimizerOf(params), data: data() };
  });
  for await (const { event } of lib.codistill(peers, { steps: 2 })) if (event.type === "step") losses.push(event.loss);

  const candidates = lib.windowsAt(tokens, [0, 20, 40], sizes);
  const scores = await lib.scoreSequences(teacher, candidates);
  const compared = await lib.compareTokens({ model: own, params: init(1) }, teacher, candidates);
  const like = init(1)["model.norm.weight"]!;
  const projection = lib.featureProjections([[8, 8]], { like })["distill.projection.0"]!;
  expect(projection.device).toBe(device === "cpu" ? "cpu" : "cuda:0");
  return { losses, scores: [...scores], divergences: [...compared.divergences] };
}

it("distils, labels, writes and scores on a GPU as on the CPU", { timeout: 120_000 }, async () => {
  expect(await results("cuda")).toEqual(await results("cpu"));
});
