/** A model trains, resumes, is evaluated and writes where its parameters are; on GPUs that are the CPU under other names. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { useFakeGpus } from "../../tensor/test/fake-gpu.js";
import { temporaryFolder } from "./temporary-folder.js";

beforeEach(() => useFakeGpus({ names: ["A", "B"], problem: "" }));
afterEach(() => vi.unstubAllEnvs());

async function libraries() {
  const t = await import("@llmeff/tensor");
  const { TokenDataset, sequentialWindows } = await import("@llmeff/data");
  const { Transformer, generate } = await import("@llmeff/models");
  const optim = await import("@llmeff/optim");
  const { evaluateLoss, loadCheckpoint, train } = await import("../src/index.js");
  return { t, TokenDataset, sequentialWindows, Transformer, generate, optim, evaluateLoss, loadCheckpoint, train };
}

const tokens = Uint8Array.from({ length: 400 }, (_, i) => (i * i) % 11);
const config = {
  vocabSize: 11,
  dModel: 8,
  numLayers: 2,
  numHeads: 2,
  maxSeqLen: 16,
  attention: [{ kind: "dot", window: 4 } as const, { kind: "simplicial", w1: 4, w2: 2 } as const],
};

describe("a model on a GPU", () => {
  it.each(["AdamW", "Sonew"] as const)("is trained, resumed, evaluated and writes there, with %s", async (name) => {
    const { t, TokenDataset, sequentialWindows, Transformer, generate, optim, ...loop } = await libraries();
    const model = new Transformer(config);
    const directory = temporaryFolder();
    const options = (device: "cpu" | "cuda:1") => {
      const params = model.init(1, { device });
      return {
        params,
        objective: model.loss.bind(model),
        optimizer: new optim[name](params, { learningRate: 1e-3, maxGradNorm: 1 }),
        data: new TokenDataset(tokens, { seqLen: 8, batchSize: 4, seed: 1 }),
        gradientAccumulation: 2,
        checkpoint: { directory },
      };
    };
    const first = options("cuda:1");
    for await (const event of loop.train({ ...first, steps: 3 })) expect(event.step).toBeLessThanOrEqual(3);
    const held = [...Object.values(first.params), ...Object.values(first.optimizer.stateDict().tensors)];
    expect(new Set(held.map(({ device }) => device))).toEqual(new Set(["cuda:1"]));
    // What a GPU has trained goes on on the CPU, and the other way round.
    for (const [steps, device] of [
      [4, "cpu"],
      [5, "cuda:1"],
    ] as const) {
      const run = options(device);
      const done: number[] = [];
      for await (const event of loop.train({ ...run, steps, resume: true }))
        if (event.type === "step") done.push(event.step);
      expect(done).toEqual([steps]);
      expect(run.params["model.norm.weight"]!.device).toBe(device);
    }
    const windows = sequentialWindows(tokens, { seqLen: 8, batchSize: 4 });
    const lossOf = async (params: typeof first.params) =>
      (await loop.evaluateLoss((p, batch) => model.lossParts(p, batch).perToken, params, windows)).loss;
    const onCpu = t.toDevice(first.params, "cpu");
    expect(await lossOf(first.params)).toBe(await lossOf(onCpu));
    const written = async (params: typeof first.params) => {
      const ids: number[] = [];
      for await (const id of generate(model, params, [1, 2, 3], { maxTokens: 10, seed: 4 })) ids.push(id);
      return ids;
    };
    expect(await written(first.params)).toEqual(await written(onCpu));
    const loaded = await loop.loadCheckpoint(`${directory}/step-00000003`, { device: "cuda" });
    expect(loaded.params["model.norm.weight"]!.device).toBe("cuda:0");
  });

  it("has an optimizer that refuses parameters and gradients of another device", async () => {
    const { t, optim } = await libraries();
    const [here, there] = [t.ones([2]), t.ones([2], { device: "cuda" })];
    expect(() => new optim.AdamW({ a: here, b: there })).toThrow(
      '[AdamW] all parameters of an optimizer must be on one device; "a" is on cpu and "b" is on cuda:0.',
    );
    const optimizer = new optim.Sonew({ a: there });
    expect(() => optimizer.step({ a: here })).toThrow(
      '[Sonew.step] the gradient of "a" must be on cuda:0, where the parameter is; received one on cpu.',
    );
    optimizer.step({ a: t.ones([2], { device: "cuda" }) });
    for (const state of Object.values(optimizer.stateDict().tensors)) expect(state.device).toBe("cuda:0");
    expect(await optimizer.droppedEdges()).toBeGreaterThanOrEqual(0);
  });
});
