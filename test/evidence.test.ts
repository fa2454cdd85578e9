/** What the studies of optimizers decide by: schedules, search points, the choice of settings, and results that survive an interruption. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Muon, SGD } from "@llmeff/optim";
import { type Tensor, tensor, valueAndGrad, zeros } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";

const lib = "../bench/evidence/lib";
const { epochRate } = await import(`${lib}/epoch-rate.mjs`);
const { bordersOf, logUniform, oneMinus, points } = await import(`${lib}/search.mjs`);
const { mean, standardError } = await import(`${lib}/statistics.mjs`);
const { Results, Workers } = await import(`${lib}/trials.mjs`);
const { tune } = await import(`${lib}/tuning.mjs`);
const { captureForward, captureTraining } = await import(`${lib}/captured.mjs`);

type Setting = Record<string, number>;

describe("epochRate", () => {
  it("is linspace(0, lr, 5), then linspace(lr, 0, 97) without its ends", () => {
    const rates = Array.from({ length: 100 }, (_, epoch) => epochRate(96, epoch, 100));
    expect(rates.slice(0, 7)).toEqual([0, 24, 48, 72, 96, 95, 94].map((x) => expect.closeTo(x, 10)));
    expect(rates[99]).toBeCloseTo(1, 10);
  });
});

describe("points", () => {
  const space = { learningRate: logUniform(1e-4, 1e-1), beta: oneMinus(0.01, 0.1) };

  it("lie in the space, the same every time, and a longer list begins with a shorter", () => {
    const found: Setting[] = points(space, 16);
    for (const { learningRate, beta } of found) {
      expect(learningRate).toBeGreaterThanOrEqual(1e-4);
      expect(learningRate).toBeLessThanOrEqual(1e-1);
      expect(1 - beta!).toBeGreaterThanOrEqual(0.01 - 1e-6);
      expect(1 - beta!).toBeLessThanOrEqual(0.1 + 1e-6);
    }
    expect(points(space, 4)).toEqual(found.slice(0, 4));
  });

  it("have some in each quarter of every coordinate", () => {
    const quarters = new Set(
      points(space, 16).map(({ learningRate }: Setting) => Math.floor(Math.log10(learningRate! * 1e4) / 0.75)),
    );
    expect(quarters).toEqual(new Set([0, 1, 2, 3]));
  });

  it("are told from the border by their learning rates", () => {
    const beta = 0.95;
    expect(bordersOf(space, { learningRate: 1e-3, beta })).toEqual([]);
    expect(bordersOf(space, { learningRate: 1.5e-4, beta })).toEqual(["learningRate 0.00015 is low"]);
    expect(bordersOf(space, { learningRate: 9e-2, beta })).toEqual(["learningRate 0.09 is high"]);
  });
});

describe("standardError", () => {
  it("is that of the mean", () => {
    // Deviations -1, 0, 1: variance 2/3, over n - 1 = 2.
    expect(standardError([4, 5, 6])).toBeCloseTo(Math.sqrt(1 / 3), 12);
    expect(mean([4, 5, 6])).toBe(5);
    expect(standardError([4])).toBeUndefined();
  });
});

describe("tune", () => {
  const space = { x: (u: number) => u };
  const trial = (hyper: Setting, length: number) => ({ hyper, length });
  type Trial = ReturnType<typeof trial>;
  const budget = { lengths: [1, 10], points: 8, finalists: 2, trial };

  it("gives the best of the finalists at full length, which need not be the best at first", async () => {
    const seen: Trial[] = [];
    const run = async (trials: Trial[]) => {
      seen.push(...trials);
      // At first small settings look best; in the end the larger of the two finalists is.
      return trials.map(({ hyper, length }) => ({ loss: length === 1 ? hyper.x! : -hyper.x! }));
    };
    const { hyper: winner, shortLoss } = await tune({ space }, { ...budget, run });
    const sorted = points(space, 8)
      .map(({ x }: Setting) => x!)
      .sort((a: number, b: number) => a - b);
    expect(winner.x).toBe(sorted[1]);
    expect(shortLoss).toBe(sorted[0]);
    expect(seen.filter(({ length }) => length === 10).map(({ hyper }) => hyper.x)).toEqual(sorted.slice(0, 2));
  });

  it("never chooses a run that diverged while another didn't", async () => {
    const run = async (trials: Trial[]) => trials.map(({ hyper }) => ({ loss: hyper.x! < 0.7 ? null : hyper.x! }));
    expect((await tune({ space }, { ...budget, run })).hyper.x).toBeGreaterThanOrEqual(0.7);
  });

  it("runs nothing for settings that come with the rule", async () => {
    const run = () => Promise.reject(new Error("asked"));
    const setting = { x: 3 };
    expect(await tune({ space, setting }, { ...budget, run })).toEqual({ hyper: setting });
  });

  it("goes by the short runs where the long ones are missing", async () => {
    const run = async (trials: Trial[]) => trials.map(({ hyper, length }) => (length === 1 ? { loss: hyper.x! } : {}));
    const lowest = Math.min(...points(space, 8).map(({ x }: Setting) => x!));
    expect((await tune({ space }, { ...budget, run })).hyper.x).toBe(lowest);
  });
});

const networks: Record<string, () => Record<string, Tensor>> = {
  rules: () => ({ weight: zeros([4, 3]), bias: zeros([4]) }),
  "language-model-rules": () => ({
    "model.embed_tokens.weight": zeros([8, 4]),
    "model.layers.0.mlp.up_proj.weight": zeros([6, 4]),
    "model.norm.weight": zeros([4]),
  }),
};

describe.each(Object.entries(networks))("%s", async (file, network) => {
  const { rules } = await import(`${lib}/${file}.mjs`);

  it.each(Object.keys(rules))("%s is made from each of its settings", (name) => {
    const { space, setting, make, as } = rules[name];
    const settings: Setting[] = setting === undefined ? points(space, 16) : [setting];
    for (const hyper of settings) {
      expect(() => make(network(), hyper, (peak: number) => () => peak).dispose()).not.toThrow();
    }
    if (as !== undefined) expect(rules[as]).toMatchObject({ space });
  });
});

describe("captureTraining", () => {
  const start = Float32Array.from({ length: 12 }, (_, i) => Math.sin(i));
  const loss = ({ weight }: Record<string, Tensor>, { x }: Record<string, Tensor>) =>
    x!.matmul(weight!.T).square().mean();
  const inputs = { x: { shape: [2, 3] } };
  const inputAt = (step: number) => Float32Array.from({ length: 6 }, (_, i) => Math.cos(i + step));

  it.each([
    ["step", (params: Record<string, Tensor>) => new SGD(params, { learningRate: 0.1, momentum: 0.9 })],
    ["gradients", (params: Record<string, Tensor>) => new Muon(params, { learningRate: 0.1 })],
  ])("captures the %s, with the losses of steps as they are", (captured, make) => {
    const [plain, other] = [0, 1].map(() => ({ weight: tensor(start, { shape: [4, 3] }) }));
    const [optimizer, capturedOptimizer] = [make(plain!), make(other!)];
    const step = captureTraining(loss, other, capturedOptimizer, inputs);
    const forward = captureForward(loss, other, inputs);
    for (let i = 0; i < 6; i++) {
      const x = tensor(inputAt(i), { shape: [2, 3] });
      const { value, grads } = valueAndGrad((p) => loss(p, { x }), plain!);
      optimizer.step(grads);
      expect(step({ x: inputAt(i) }).itemSync()).toBe(value.itemSync());
      expect(forward({ x: inputAt(i) }).itemSync()).toBe(loss(plain!, { x }).itemSync());
    }
    expect(step.captured).toBe(captured);
    expect(capturedOptimizer.stepCount).toBe(6);
    step.dispose();
    forward.dispose();
  });
});

describe("Workers", () => {
  it("keep every result, and don't run again what is kept", async () => {
    const folder = mkdtempSync(join(tmpdir(), "evidence-"));
    const results = new Results("test", { cpu: "none" }, folder);
    const trial = { rule: "sgd", seed: 1 };
    results.add(trial, { loss: 4 });
    const again = new Results("test", { cpu: "none" }, folder);
    expect(again.machines).toEqual([]);
    const workers = new Workers("absent.mjs", { count: 1, device: "cpu", results: again });
    expect(await workers.run([trial])).toEqual([{ loss: 4 }]);
    expect(again.machines).toEqual([{ cpu: "none" }]);
    const none = new Workers("absent.mjs", { count: 0, device: "cpu", results: again });
    expect(await none.run([trial, { rule: "sgd", seed: 2 }])).toEqual([{ loss: 4 }, {}]);
    await expect(workers.run([{ rule: "sgd", seed: 2 }])).rejects.toThrow("[evidence] absent.mjs ended with 1.");
    workers.end();
    expect(readFileSync(again.path, "utf8").trim().split("\n")).toHaveLength(1);
    rmSync(folder, { recursive: true });
  });
});
