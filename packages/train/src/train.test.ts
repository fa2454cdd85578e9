import { type Batch, IGNORE_INDEX, sequentialWindows } from "@llmeff/data";
import { AdamW, constant } from "@llmeff/optim";
import { NonFiniteError, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collect, cycle, stepsOf } from "../test/run.js";
import {
  batchOf,
  bitsOf,
  disposeTensors,
  optimizerNames,
  seqLen,
  tinyData,
  tinyLoss,
  tinyLossPerToken,
  tinyOptimizer,
  tinyParams,
  tinyTokens,
} from "../test/tiny-model.js";
import { evaluateLoss, type StepEvent, type TrainOptions, train } from "./index.js";

describe("train", () => {
  it.each(optimizerNames)("learns the task with %s", async (name) => {
    const params = tinyParams();
    const optimizer = tinyOptimizer(name, params);
    const steps = stepsOf(
      await collect(train({ params, objective: tinyLoss, optimizer, data: tinyData(), steps: 200 })),
    );
    expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: 200 }, (_, i) => i + 1));
    expect(steps[0]!.loss).toBeGreaterThan(2.2); // ln 11 = 2.40 for a uniform guess
    expect(steps.at(-1)!.loss).toBeLessThan(1.2);
    disposeTensors(params);
    optimizer.dispose();
  });

  it("computes a step by hand: plain mean, AdamW's first step is the sign of the gradient", async () => {
    // loss = mean of (w - target)², targets 1 and 3, w = 5: ((5-1)² + (5-3)²) / 2 = 10, gradient (4 + 2) = 6, so w falls by lr.
    const params = { w: tensor([5]) };
    const optimizer = new AdamW(params, { learningRate: 0.5, weightDecay: 0, maxGradNorm: Number.POSITIVE_INFINITY });
    let now = 0;
    const options: TrainOptions = {
      params,
      objective: (p, { targets }) => p.w!.sub(targets.astype("float32")).square().mean(),
      optimizer,
      data: cycle([batchOf([[1, 3]])]),
      steps: 1,
      clock: () => (now += 500),
    };
    const [event] = await collect(train(options));
    expect(event).toMatchObject({ type: "step", step: 1, learningRate: 0.5, skipped: false, tokens: 2, seconds: 0.5 });
    const { loss, gradNorm, tokensPerSecond } = event as StepEvent;
    expect([loss, gradNorm, tokensPerSecond]).toEqual([10, 6, 4]);
    expect(await params.w.item()).toBeCloseTo(4.5, 5);
  });

  it("tells the learning rate that the step used, and no norm where none is measured", async () => {
    const params = tinyParams();
    const optimizer = new AdamW(params, { learningRate: (step) => 1e-3 / (step + 1) });
    const steps = stepsOf(await collect(train({ params, objective: tinyLoss, optimizer, data: tinyData(), steps: 3 })));
    expect(steps.map(({ learningRate }) => learningRate)).toEqual([1e-3, 5e-4, 1e-3 / 3]);
    expect(steps.every((event) => !("gradNorm" in event))).toBe(true);
    expect(steps.map(({ tokens }) => tokens)).toEqual([96, 192, 288]);
  });

  it("accumulates micro-batches with different numbers of targets to the gradient of one large batch", async () => {
    const large = tinyData(8).next();
    const masked = Int32Array.from(large.targets, (target, i) =>
      (i * 7) % 5 < Math.floor(i / 24) ? IGNORE_INDEX : target,
    );
    const part = (rows: [number, number]): Batch => ({
      tokens: large.tokens.slice(rows[0] * seqLen, rows[1] * seqLen),
      targets: masked.slice(rows[0] * seqLen, rows[1] * seqLen),
      batchSize: rows[1] - rows[0],
      seqLen,
    });
    const micro = [part([0, 2]), part([2, 3]), part([3, 7]), part([7, 8])];
    const counts = micro.map(({ targets }) => targets.filter((target) => target !== IGNORE_INDEX).length);
    expect(new Set(counts).size).toBe(4);
    const run = async (batches: Batch[], gradientAccumulation: number) => {
      const params = tinyParams(1, "float64");
      const optimizer = new AdamW(params, { learningRate: 1e-2, maxGradNorm: 0.5 });
      const options = { params, objective: tinyLoss, optimizer, data: cycle(batches), steps: 5, gradientAccumulation };
      const events = stepsOf(await collect(train(options)));
      const values = await Promise.all(Object.values(params).map(async (p) => Array.from(await p.data())));
      return { events, values: values.flat() };
    };
    const whole = await run([part([0, 8])], 1);
    const accumulated = await run(micro, 4);
    // 5 steps at a learning rate of 1e-2: rounding of the sums, 96 terms of relative size 1e-16, grown by AdamW's division by √v + 1e-8.
    const worst = Math.max(...whole.values.map((x, i) => Math.abs(x - accumulated.values[i]!)));
    expect(worst).toBeLessThan(1e-10);
    for (const [i, event] of accumulated.events.entries()) {
      expect(event.loss).toBeCloseTo(whole.events[i]!.loss, 12);
      expect(event.gradNorm).toBeCloseTo(whole.events[i]!.gradNorm!, 12);
      expect(event.tokens).toBe(whole.events[i]!.tokens);
    }
  });

  it("weighs a mean of means rightly: 1 target of loss 1 and 3 targets of loss 9 give 7", async () => {
    const params = { w: tensor([0]) };
    const optimizer = new AdamW(params, { learningRate: 0, maxGradNorm: Number.POSITIVE_INFINITY });
    const data = cycle([batchOf([[1, IGNORE_INDEX, IGNORE_INDEX]]), batchOf([[3, 3, 3]]), batchOf([[IGNORE_INDEX]])]);
    const objective: TrainOptions["objective"] = (p, { targets }) => {
      const value = targets.slice(1, 0, 1).astype("float32");
      return p.w!.sub(value).square().mean();
    };
    const [event] = await collect(train({ params, objective, optimizer, data, steps: 1, gradientAccumulation: 3 }));
    // (1 · 1² + 3 · 3²) / 4 = 7; gradient (1 · 2·1 + 3 · 2·3) / 4 = 5
    expect(event).toMatchObject({ loss: 7, gradNorm: 5 });
  });

  it("takes a batch without any target as loss 0 without a gradient", async () => {
    const params = tinyParams();
    const before = await bitsOf(params);
    const optimizer = new AdamW(params, { learningRate: 1, weightDecay: 0, maxGradNorm: 1 });
    const empty: Batch = { ...tinyData().next(), targets: new Int32Array(8 * seqLen).fill(IGNORE_INDEX) };
    const options = { params, objective: tinyLoss, optimizer, data: cycle([empty]), steps: 2, gradientAccumulation: 2 };
    expect(stepsOf(await collect(train(options))).map(({ loss }) => loss)).toEqual([0, 0]);
    expect(await bitsOf(params)).toEqual(before);
  });

  it("evaluates where it is due, and at the end", async () => {
    const params = tinyParams();
    const valid = sequentialWindows(tinyTokens(400), { seqLen, batchSize: 8 });
    const optimizer = tinyOptimizer("adamw", params);
    const evaluate = async () => {
      const { loss } = await evaluateLoss(tinyLossPerToken, params, valid);
      return { loss };
    };
    const events = await collect(
      train({ params, objective: tinyLoss, optimizer, data: tinyData(), steps: 10, evaluate, evaluateEvery: 4 }),
    );
    const seen = events.map((event) => `${event.type}${event.step}`);
    expect(seen.filter((text) => text.startsWith("evaluation"))).toEqual([
      "evaluation4",
      "evaluation8",
      "evaluation10",
    ]);
    expect(seen.indexOf("evaluation4")).toBe(seen.indexOf("step4") + 1);
  });

  it("stops when an evaluation says so", async () => {
    const params = tinyParams();
    const optimizer = tinyOptimizer("adamw", params);
    const options: TrainOptions = {
      params,
      objective: tinyLoss,
      optimizer,
      data: tinyData(),
      steps: 50,
      evaluate: ({ step }) => ({ step }),
      evaluateEvery: 5,
      stopWhen: (metrics) => metrics.step! >= 15,
    };
    expect((await collect(train(options))).at(-1)).toEqual({ type: "evaluation", step: 15, metrics: { step: 15 } });
  });

  it("throws the reason of an aborted signal after finishing the step", async () => {
    const params = tinyParams();
    const controller = new AbortController();
    const reason = new Error("enough");
    const optimizer = tinyOptimizer("adamw", params);
    const options = { params, objective: tinyLoss, optimizer, data: tinyData(), steps: 50, signal: controller.signal };
    const steps: number[] = [];
    const running = (async () => {
      for await (const event of train(options)) {
        steps.push(event.step);
        if (event.step === 3) controller.abort(reason);
      }
    })();
    await expect(running).rejects.toBe(reason);
    expect(steps).toEqual([1, 2, 3]);
    expect(optimizer.stepCount).toBe(3);
  });

  it("stops at a loss that is NaN before any parameter changes", async () => {
    const params = tinyParams();
    const optimizer = new AdamW(params, { learningRate: 1e-3 });
    const objective: TrainOptions["objective"] = (p, batch, { step }) =>
      tinyLoss(p, batch).mul(step === 4 ? Number.NaN : 1);
    let before: Record<string, string> = {};
    const running = (async () => {
      for await (const _ of train({ params, objective, optimizer, data: tinyData(), steps: 9 }))
        before = await bitsOf(params);
    })();
    await expect(running).rejects.toThrow(NonFiniteError);
    await expect(running).rejects.toThrow(
      /^\[train\] loss is NaN at step 4; .*after step 3.*there is no checkpoint yet/,
    );
    expect(await bitsOf(params)).toEqual(before);
    expect(optimizer.stepCount).toBe(3);
  });

  it("counts steps with a non-finite norm, which change nothing, and fails after too many in a row", async () => {
    const params = tinyParams();
    const before = await bitsOf(params);
    const optimizer = tinyOptimizer("adamw", params);
    // A finite loss with an infinite gradient: √w at w = 0.
    const objective: TrainOptions["objective"] = (p, batch) =>
      tinyLoss(p, batch).add(p["norm.weight"]!.mul(0).sqrt().sum());
    const steps: StepEvent[] = [];
    const running = (async () => {
      for await (const event of train({
        params,
        objective,
        optimizer,
        data: tinyData(),
        steps: 9,
        maxSkippedSteps: 3,
      })) {
        if (event.type === "step") steps.push(event);
      }
    })();
    await expect(running).rejects.toThrow(/norm is (NaN|Infinity) at step 3, the 3rd such step in a row/);
    expect(steps.map(({ skipped }) => skipped)).toEqual([true, true]);
    expect(await bitsOf(params)).toEqual(before);
  });

  it("gives the objective keys for random numbers", async () => {
    const params = { w: tensor([1]) };
    const seen: unknown[] = [];
    const objective: TrainOptions["objective"] = (p, _batch, context) => {
      seen.push(context);
      return p.w!.square().sum();
    };
    const optimizer = new AdamW(params, { learningRate: constant(1e-3) });
    await collect(
      train({
        params,
        objective,
        optimizer,
        data: cycle([batchOf([[1]])]),
        steps: 2,
        gradientAccumulation: 2,
        seed: 9,
      }),
    );
    expect(seen).toMatchObject([
      { seed: 9, step: 1, microBatch: 0, stream: 0 },
      { seed: 9, step: 1, microBatch: 1, stream: 1 },
      { seed: 9, step: 2, microBatch: 0, stream: 2 },
      { seed: 9, step: 2, microBatch: 1, stream: 3 },
    ]);
  });
});
