/** Tensors that a rule of their own changes after each step: here biases of the logits, against tokens that come too often. */
import {
  copyInto,
  crossEntropy,
  FormatError,
  mean,
  memory,
  mul,
  NonFiniteError,
  OptionError,
  oneHot,
  scope,
  sign,
  sub,
  sum,
  sync,
  type Tensor,
  tensor,
  zeros,
} from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collectGarbage } from "../../../test/garbage.js";
import { collect, stepsOf } from "../test/run.js";
import { temporaryFolder } from "../test/temporary-folder.js";
import {
  bitsOf,
  disposeTensors,
  tinyData,
  tinyLogits,
  tinyOptimizer,
  tinyParams,
  vocabSize,
} from "../test/tiny-model.js";
import {
  latestCheckpoint,
  loadCheckpoint,
  type ModelState,
  type Objective,
  type TrainOptions,
  train,
} from "./index.js";

/** The state, the loads that it was given, and an objective that it counts in. */
function balancing(): { modelState: ModelState; objective: Objective; loads: number[][]; bias: Tensor } {
  const bias = zeros([vocabSize]);
  const loads: number[][] = [];
  const modelState: ModelState = {
    tensors: { "token.bias": bias },
    update({ load }) {
      loads.push(Array.from(load!.dataSync()));
      scope(() => {
        const counts = load!.astype("float32");
        copyInto(bias, bias.add(mul(sign(sub(mean(counts), counts)), 0.01)));
      });
    },
  };
  const objective: Objective = (params, batch, { collect }) => {
    collect("load", sum(oneHot(batch.tokens, vocabSize), { axis: [0, 1] }));
    return crossEntropy(tinyLogits(params, batch).add(bias), batch.targets);
  };
  return { modelState, objective, loads, bias };
}

async function trained(options: Partial<TrainOptions> = {}) {
  const { modelState, objective, loads, bias } = balancing();
  const params = tinyParams();
  const optimizer = tinyOptimizer("adamw", params);
  const given = { params, optimizer, modelState, objective, data: tinyData(4), steps: 8, clock: () => 0 };
  const events = stepsOf(await collect(train({ ...given, ...options })));
  const bits = await bitsOf({ ...params, bias });
  disposeTensors({ ...params, bias });
  optimizer.dispose();
  return { losses: events.map(({ step, loss }) => [step, loss] as const), bits, loads };
}

describe("train with modelState", () => {
  it("changes it after every step by the sums over the micro-batches", async () => {
    const whole = await trained({ data: tinyData(8) });
    const parts = await trained({ data: tinyData(4), gradientAccumulation: 2 });
    expect(whole.loads).toHaveLength(8);
    for (const load of whole.loads) expect(load.reduce((a, b) => a + b)).toBe(8 * 12);
    expect(parts.loads).toEqual(whole.loads);
    expect(parts.bits.bias).toBe(whole.bits.bias);
  });

  it.each([1, 3])("has the same bits in captured steps, %d micro-batches", async (gradientAccumulation) => {
    const plain = await trained({ gradientAccumulation });
    expect(await trained({ gradientAccumulation, captureStep: true })).toEqual(plain);
  });

  it.each([false, true])(
    "resumes from any step with the bits of an uninterrupted run, captured %s",
    async (captureStep) => {
      const whole = await trained({ captureStep });
      for (const cut of [1, 3, 7]) {
        const checkpoint = { directory: temporaryFolder() };
        const first = await trained({ captureStep, steps: cut, checkpoint });
        const rest = await trained({ captureStep, checkpoint, resume: true });
        expect([...first.losses, ...rest.losses]).toEqual(whole.losses);
        expect(rest.bits).toEqual(whole.bits);
      }
    },
  );

  it("lies beside the parameters in a checkpoint, which doesn't fit a run without it", async () => {
    const directory = temporaryFolder();
    await trained({ steps: 2, checkpoint: { directory } });
    const { params, optimizer } = await loadCheckpoint((await latestCheckpoint(directory))!.path);
    expect(params["token.bias"]!.shape).toEqual([vocabSize]);
    expect(Object.keys(optimizer.tensors).some((name) => name.includes("token.bias"))).toBe(false);
    disposeTensors({ ...params, ...optimizer.tensors });
    const other = { checkpoint: { directory }, resume: true, objective: plainObjective };
    const run = trained({ ...other, modelState: { tensors: {}, update: () => undefined } });
    await expect(run).rejects.toThrow(FormatError);
    await expect(run).rejects.toThrow('"token.bias" is not in the model');
  });

  it("may be of other dtypes than the parameters, and is checked before it is saved", async () => {
    const directory = temporaryFolder();
    const counts = tensor(Int32Array.of(0));
    const wide = zeros([1], { dtype: "float64" });
    const counting = (limit: number): ModelState => ({
      tensors: { counts, wide },
      update(_, step) {
        scope(() => copyInto(counts, counts.add(tensor(Int32Array.of(1)))));
        scope(() => copyInto(wide, wide.add(step < limit ? step : Number.POSITIVE_INFINITY)));
      },
    });
    const checkpoint = { directory, every: 2 };
    const run = trained({ objective: plainObjective, modelState: counting(5), checkpoint });
    await expect(run).rejects.toThrow(NonFiniteError);
    const found = await latestCheckpoint(directory);
    const { params, optimizer } = await loadCheckpoint(found!.path);
    expect([found!.step, params.counts!.dataSync()[0], params.wide!.dataSync()[0]]).toEqual([4, 4, 10]);
    disposeTensors({ ...params, ...optimizer.tensors, counts, wide });
  });

  it("stays as it is in steps that the optimizer skips", async () => {
    const { modelState, objective, loads, bias } = balancing();
    // √0 is finite; its gradient isn't.
    const steep: Objective = (params, batch, context) => {
      const loss = objective(params, batch, context);
      return context.step === 2 ? loss.add(params["norm.weight"]!.sum().mul(0).sqrt()) : loss;
    };
    const params = tinyParams();
    const optimizer = tinyOptimizer("adamw", params);
    const events = await collect(
      train({ params, optimizer, modelState, objective: steep, data: tinyData(4), steps: 3 }),
    );
    expect(stepsOf(events).map(({ skipped }) => skipped)).toEqual([false, true, false]);
    expect(loads).toHaveLength(2);
    disposeTensors({ ...params, bias });
    optimizer.dispose();
  });

  it("holds the same memory at the end of every step", async () => {
    await collectGarbage();
    const { modelState, objective, bias } = balancing();
    const params = tinyParams();
    const optimizer = tinyOptimizer("adamw", params);
    const seen = new Set<string>();
    for await (const { step } of train({ params, optimizer, modelState, objective, data: tinyData(4), steps: 20 })) {
      await sync();
      if (step > 3) seen.add(`${memory().tensors} ${memory().liveBytes}`);
    }
    expect(seen.size).toBe(1);
    disposeTensors({ ...params, bias });
    optimizer.dispose();
  });

  it("refuses states that can't be one", async () => {
    const refuse = (modelState: unknown, message: string) => {
      const params = tinyParams();
      const optimizer = tinyOptimizer("adamw", params);
      const options = { params, optimizer, objective: plainObjective, data: tinyData(), steps: 1 };
      expect(() => train({ ...options, modelState: modelState as ModelState })).toThrow(OptionError);
      expect(() => train({ ...options, modelState: modelState as ModelState })).toThrow(message);
      disposeTensors(params);
      optimizer.dispose();
    };
    refuse({ tensors: {} }, "modelState must have the methods update; it lacks update");
    const update = () => undefined;
    refuse({ tensors: { a: 1 }, update }, 'modelState.tensors["a"] must be a Tensor; received 1');
    refuse({ tensors: { "head.weight": zeros([1]) }, update }, 'received "head.weight", a parameter\'s');
  });
});

const plainObjective: Objective = (params, batch) => crossEntropy(tinyLogits(params, batch), batch.targets);

describe("train with utilization", () => {
  it("tells the share of the device's operations that a step's tokens take", async () => {
    let now = 0;
    const params = tinyParams();
    const optimizer = tinyOptimizer("adamw", params);
    const utilization = { flopsPerToken: 1000, peakFlops: 1e6 };
    const options = { params, optimizer, objective: plainObjective, data: tinyData(8), steps: 2, utilization };
    const clock = () => {
      now += 500;
      return now;
    };
    const [first] = stepsOf(await collect(train({ ...options, clock })));
    // 96 tokens in half a second: 192 tokens/s of 1,000 operations, of a million.
    expect([first!.tokensPerSecond, first!.mfu]).toEqual([192, 0.192]);
    for (const wrong of [{ ...utilization, peakFlops: 0 }, { flopsPerToken: 1 }])
      expect(() => train({ ...options, utilization: wrong as never })).toThrow(
        "utilization.peakFlops must be a positive",
      );
    disposeTensors(params);
    optimizer.dispose();
  });
});
