/** Training of mixtures of experts and of muP from configs: what the loop has to look after beside gradients. */
import { existsSync } from "node:fs";
import { memory } from "@llmeff/tensor";
import { latestCheckpoint, loadCheckpoint } from "@llmeff/train";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { check } from "../src/config/read-config.js";
import { trainingSchema } from "../src/config/training-schema.js";
import { estimateRun } from "../src/run/estimate-run.js";
import { loadModel } from "../src/run/load-model.js";
import { sampleText, textConfig, Workplace } from "./harness.js";

let place: Workplace;
beforeEach(async () => {
  place = await Workplace.create();
  await place.write("text.txt", sampleText);
});
afterEach(() => place[Symbol.asyncDispose]());

const experts = {
  ...{ numExperts: 4, topK: 2, expertDim: 16, sharedDim: 8, denseLayers: 1 },
  ...{ score: "sigmoid", routerBias: true, jitter: 0.05, zCoef: 0.001, auxCoef: 0.001 },
};
const model = { dModel: 16, numLayers: 3, numHeads: 2, maxSeqLen: 64, experts };

function config(changes: object = {}, training: object = {}): Record<string, unknown> {
  const base = textConfig();
  return {
    ...base,
    model,
    optimizer: { kind: "adamw", learningRate: 0.01, maxGradNorm: 1 },
    training: { ...(base.training as object), routerBiasRate: 0.01, gradientAccumulation: 2, ...training },
    ...changes,
  };
}

async function weights(run: string) {
  const found = await latestCheckpoint(place.path("runs", run, "checkpoints"));
  const { params, optimizer, step } = await loadCheckpoint(found!.path);
  const values = Object.entries({ ...params, ...optimizer.tensors }).map(
    ([name, tensor]) => [name, Array.from(tensor.dataSync())] as const,
  );
  return { step, values: Object.fromEntries(values), names: Object.keys(params) };
}

describe("llmeff train of a mixture of experts", () => {
  const biases = ["model.layers.1.mlp.router.bias", "model.layers.2.mlp.router.bias"];

  it("balances the routers' biases and keeps them in checkpoints, from which text is written", async () => {
    await place.write("config.json", config());
    const run = await place.run(["train", "config.json"]);
    expect(run.code, run.stderr).toBe(0);
    expect(run.stdout).toMatch(/12 steps, 1\.54k tokens, [\d.]+k parameters \([\d.]+k active\): validation loss/);
    const { values, names } = await weights("tiny");
    expect(names.filter((name) => name.endsWith("router.bias"))).toEqual(biases);
    for (const name of biases) {
      const bias = values[name]!;
      // Twelve steps of 0.01 each, up, down or neither.
      for (const b of bias) expect(Math.abs(b * 100 - Math.round(b * 100))).toBeLessThan(1e-4);
      expect(
        bias.some((b) => b !== 0),
        String(bias),
      ).toBe(true);
    }
    const written = await place.run(["generate", "runs/tiny", "--prompt", "the ", "--tokens", "5"]);
    expect(written).toMatchObject({ code: 0, stdout: expect.stringMatching(/^the /) });
  });

  it("interrupted and resumed, ends with the weights, states and biases of an uninterrupted run", async () => {
    await place.write("config.json", config());
    await place.run(["train", "config.json", "--out", "runs/straight"]);
    expect(await place.run(["train", "config.json"], { interruptAt: "step 4: validation" })).toMatchObject({
      code: 130,
    });
    const resumed = await place.run(["train", "config.json", "--resume"]);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(await weights("tiny")).toEqual(await weights("straight"));
  });

  it("has the same weights in captured steps, and with blocks that are computed again", async () => {
    await place.write("config.json", config());
    await place.write("captured.json", config({}, { captureStep: true }));
    await place.run(["train", "config.json", "--out", "runs/plain"]);
    expect(await place.run(["train", "captured.json", "--out", "runs/captured"])).toMatchObject({ code: 0 });
    expect(await weights("captured")).toEqual(await weights("plain"));
    for (const recompute of [true, "selective", "activations"]) {
      await place.write("recompute.json", config({}, { recompute }));
      expect(await place.run(["train", "recompute.json", "--out", `runs/${recompute}`])).toMatchObject({ code: 0 });
      expect(await weights(`${recompute}`)).toEqual(await weights("plain"));
    }
  });

  it("differs with jitter and without, and with z-loss and label smoothing", async () => {
    const losses = async (name: string, given: Record<string, unknown>) => {
      await place.write("config.json", given);
      expect(await place.run(["train", "config.json", "--steps", "2", "--out", `runs/${name}`])).toMatchObject({
        code: 0,
      });
      return (await weights(name)).values["model.embed_tokens.weight"];
    };
    const base = await losses("base", config());
    const calm = { model: { ...model, experts: { ...experts, jitter: 0 } } };
    expect(await losses("calm", config(calm))).not.toEqual(base);
    expect(await losses("again", config())).toEqual(base);
    expect(await losses("z", config({}, { zLoss: 0.01 }))).not.toEqual(base);
    expect(await losses("smooth", config({}, { labelSmoothing: 0.1 }))).not.toEqual(base);
  });

  it("goes on with the rate of biases and the z-loss that it was started with only", async () => {
    await place.write("config.json", config());
    await place.run(["train", "config.json", "--steps", "4"]);
    await place.write("config.json", config({}, { routerBiasRate: 0.02, zLoss: 0.1 }));
    const refused = await place.run(["train", "config.json", "--resume"]);
    expect(refused).toMatchObject({ code: 2 });
    expect(refused.stderr).toContain("training.routerBiasRate: was 0.01, is 0.02");
    expect(refused.stderr).toContain("training.zLoss: was 0, is 0.1");
  });
});

describe("llmeff train with muP", () => {
  const mup = (baseWidth: number) =>
    config(
      { model: { dModel: 16, numLayers: 1, numHeads: 2, maxSeqLen: 64, mup: { baseWidth } } },
      { routerBiasRate: undefined },
    );

  it("steps hidden matrices at the rate of the width, and resumes to the same weights", async () => {
    await place.write("config.json", mup(4));
    await place.run(["train", "config.json", "--out", "runs/straight"]);
    await place.run(["train", "config.json"], { interruptAt: "step 4: validation" });
    const resumed = await place.run(["train", "config.json", "--resume"]);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(await weights("tiny")).toEqual(await weights("straight"));
    const { optimizer, ...rest } = mup(4);
    const steps = { ...rest, optimizer: optimizer as object, training: { ...(rest.training as object), steps: 1 } };
    await place.write("one.json", steps);
    await place.run(["train", "one.json", "--out", "runs/one"]);
    await place.write("none.json", { ...steps, optimizer: { ...steps.optimizer, learningRate: 1e-30 } });
    await place.run(["train", "none.json", "--out", "runs/none"]);
    const [moved, initial] = [await weights("one"), await weights("none")];
    const change = (name: string) =>
      Math.max(...moved.values[name]!.map((value, i) => Math.abs(value - initial.values[name]![i]!)));
    // Adam's first step is the rate for every weight with a gradient, decay aside: 0.01, and a quarter of it for hidden matrices.
    expect(change("model.embed_tokens.weight")).toBeGreaterThan(0.0095);
    for (const name of ["self_attn.v_proj", "mlp.up_proj"]) {
      expect(change(`model.layers.0.${name}.weight`)).toBeGreaterThan(0.24e-2);
      expect(change(`model.layers.0.${name}.weight`)).toBeLessThan(0.27e-2);
    }
  });
});

describe("llmeff train with averageDecay", () => {
  it.each(["float32", "bfloat16", "float16"])(
    "evaluates and keeps the average of %s weights, through interruptions",
    async (dtype) => {
      await place.write("config.json", config({ dtype }, { averageDecay: 0.8 }));
      await place.run(["train", "config.json", "--out", "runs/straight"]);
      expect(await place.run(["train", "config.json"], { interruptAt: "step 4: validation" })).toMatchObject({
        code: 130,
      });
      expect(await place.run(["train", "config.json", "--resume"])).toMatchObject({ code: 0 });
      const { values } = await weights("tiny");
      expect(values).toEqual((await weights("straight")).values);
      using loaded = await loadModel(place.path("runs/tiny"), { device: "cpu" });
      const name = "model.layers.0.mlp.up_proj.weight";
      const [own, average] = [values[name]!, values[`average.${name}`]!];
      expect(own).not.toEqual(average);
      const held = loaded.params[name]!;
      expect(held.dtype).toBe(dtype);
      if (dtype === "float32") expect(Array.from(held.dataSync())).toEqual(average);
      expect(Object.keys(loaded.params).some((one) => one.startsWith("average."))).toBe(false);
      const written = await place.run(["generate", "runs/tiny", "--prompt", "the ", "--tokens", "5"]);
      expect(written).toMatchObject({ code: 0, stdout: expect.stringMatching(/^the /) });
    },
  );
});

it("keeps the best checkpoint, and says which it is", async () => {
  await place.write("config.json", config({}, { keepBest: true, keepLast: 1, evaluateEvery: 1, averageDecay: 0.5 }));
  const run = await place.run(["train", "config.json"]);
  expect(run.code, run.stderr).toBe(0);
  const records = (await place.read("runs/tiny/metrics.jsonl"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const measured = records.filter(({ validationLoss }) => validationLoss !== undefined);
  const best = measured.reduce((a, b) => (b.validationLoss < a.validationLoss ? b : a));
  expect(run.stdout).toContain(`best: runs/tiny/checkpoints/step-${String(best.step).padStart(8, "0")}`);
});

it("tells the utilization of a device whose operations are given", async () => {
  await place.write("config.json", config({}, { peakFlops: 1e9 }));
  const run = await place.run(["train", "config.json", "--steps", "2"]);
  expect(run).toMatchObject({ code: 0, stdout: expect.stringMatching(/tokens\/s, MFU [\d.]+ %/) });
  const [first] = (await place.read("runs/tiny/metrics.jsonl")).split("\n");
  const { mfu, tokensPerSecond } = JSON.parse(first!);
  expect(mfu / tokensPerSecond).toBeGreaterThan(0);
});

describe("llmeff train --dry-run", () => {
  it("tells parameters, memory and time of a mixture, and writes nothing", async () => {
    await place.write("config.json", config({}, { peakFlops: 1e9, steps: 1000 }));
    const run = await place.run(["train", "config.json", "--dry-run"]);
    expect(run.code, run.stderr).toBe(0);
    expect(run.stdout).toMatch(/^13\.5k parameters \(10\.4k active\), [\d.]+k operations a token$/m);
    expect(run.stdout).toMatch(/^\d+ MB on \S+: parameters 1 MB, optimizer 1 MB, gradients and activations \d+ MB$/m);
    expect(run.stdout).toMatch(/^[\d.]+k? tokens\/s, MFU [\d.]+ %$/m);
    expect(run.stdout).toMatch(/^1,?000 steps of 128 tokens take about .+, without evaluations and checkpoints$/m);
    expect(existsSync(place.path("runs"))).toBe(false);
  });

  it("measures what the run's steps hold", async () => {
    await place.write("config.json", config());
    const parsed = check(trainingSchema, config());
    if (!parsed.ok) throw new Error("the config is wrong");
    const options = { configFile: place.path("config.json"), signal: new AbortController().signal };
    const before = memory("cpu").tensors;
    const estimate = await estimateRun(parsed.value, options);
    expect(memory("cpu").tensors).toBe(before);
    const { parameters, parameterBytes, optimizerBytes, peakBytes, tokensPerStep, seconds, secondsPerStep } = estimate;
    // Two biases of four experts each beside the parameters; two moments of each of these.
    expect(parameterBytes).toBe(4 * (parameters + 8));
    expect(optimizerBytes).toBe(8 * parameters);
    // Gradients too, of both micro-batches where they are added up.
    expect(peakBytes).toBeGreaterThan(parameterBytes + optimizerBytes + 4 * parameters);
    expect(peakBytes).toBeLessThan(parameterBytes + optimizerBytes + 4 * parameters + 64e6);
    expect([tokensPerStep, seconds]).toEqual([128, 12 * secondsPerStep]);
  });

  it.each(["float32", "bfloat16", "float16"])(
    "counts the optimizer's state beside what %s steps hold",
    async (dtype) => {
      await place.write("config.json", config());
      const wide = { dModel: 64, numLayers: 2, numHeads: 2, maxSeqLen: 64 };
      const parsed = check(trainingSchema, config({ model: wide, dtype }, { routerBiasRate: undefined }));
      if (!parsed.ok) throw new Error("the config is wrong");
      const options = { configFile: place.path("config.json"), signal: new AbortController().signal };
      const before = memory("cpu").tensors;
      const { parameters, parameterBytes, optimizerBytes, peakBytes } = await estimateRun(parsed.value, options);
      expect(memory("cpu").tensors).toBe(before);
      const size = dtype === "float32" ? 4 : 2;
      expect(peakBytes).toBeGreaterThanOrEqual(parameterBytes + optimizerBytes + size * parameters);
    },
  );

  it("makes no more steps than the run has, with any schedule", async () => {
    const { optimizer, ...rest } = config({}, { steps: 1 });
    await place.write("config.json", {
      ...rest,
      optimizer: { ...(optimizer as object), schedule: { kind: "cosine", warmupSteps: 1 } },
    });
    expect(await place.run(["train", "config.json", "--dry-run"])).toMatchObject({ code: 0 });
  });
});
