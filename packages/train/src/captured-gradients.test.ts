import { type Batch, IGNORE_INDEX } from "@llmeff/data";
import { CaptureError, div, dropout, full, memory, NonFiniteError } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collectGarbage } from "../../../test/garbage.js";
import { collect, cycle, stepsOf } from "../test/run.js";
import { temporaryFolder } from "../test/temporary-folder.js";
import {
  batchOf,
  bitsOf,
  disposeTensors,
  optimizerNames,
  seqLen,
  tinyData,
  tinyLogits,
  tinyLoss,
  tinyOptimizer,
  tinyParams,
  vocabSize,
} from "../test/tiny-model.js";
import { type Objective, type TrainOptions, train } from "./index.js";

/** With dropout, by a key of the step. */
const noisy: Objective = (params, batch, { seed, stream }) => {
  const dropped = dropout(tinyLogits(params, batch), 0.1, { seed, stream });
  return tinyLoss(params, batch).add(dropped.square().mean().mul(1e-3));
};

async function trained(options: Partial<TrainOptions>, name: (typeof optimizerNames)[number] = "adamw") {
  const params = tinyParams();
  const optimizer = tinyOptimizer(name, params);
  const clock = () => 0;
  const events = stepsOf(
    await collect(train({ params, objective: noisy, optimizer, data: tinyData(4), steps: 8, clock, ...options })),
  );
  const bits = { params: await bitsOf(params), state: await bitsOf(optimizer.stateDict().tensors) };
  disposeTensors(params);
  optimizer.dispose();
  return { events, ...bits };
}

describe("train with captureStep", () => {
  it.each(optimizerNames)("has the events and bits of training without, with %s", async (name) => {
    for (const gradientAccumulation of [1, 3]) {
      const plain = await trained({ gradientAccumulation }, name);
      expect(await trained({ gradientAccumulation, captureStep: true }, name)).toEqual(plain);
    }
  });

  it("runs steps uncaptured whose batches are shorter or have no targets", async () => {
    const whole = tinyData(4).next();
    const short = batchOf([[1, 2, 3]]);
    const empty: Batch = { ...whole, targets: whole.targets.map(() => IGNORE_INDEX) };
    const masked: Batch = { ...whole, targets: whole.targets.map((id, i) => (i % 3 === 0 ? IGNORE_INDEX : id)) };
    const objective: Objective = (params, batch) => {
      const T = batch.tokens.shape[1]!;
      const position = params["position.weight"]!.slice(0, 0, T);
      return tinyLoss({ ...params, "position.weight": position }, batch);
    };
    const order = [
      whole,
      masked,
      whole,
      whole,
      masked,
      whole,
      short,
      whole,
      whole,
      empty,
      masked,
      masked,
      whole,
      whole,
    ];
    const options = { objective, gradientAccumulation: 2, steps: 7 };
    const plain = await trained({ ...options, data: cycle(order) });
    expect(await trained({ ...options, data: cycle(order), captureStep: true })).toEqual(plain);
  });

  it("ends before a step with a loss that is not finite changes a parameter, captured or not", async () => {
    const good = tinyData(4).next();
    const bad: Batch = { ...good, targets: good.targets.with(0, 0).fill(1, 1) };
    const objective: Objective = (params, batch) => {
      // Infinite for the targets of `bad` alone.
      const spread = batch.targets.astype("float32");
      return tinyLoss(params, batch).add(div(1, spread.sub(1).square().sum().sub(1)));
    };
    for (const steps of [2, 5]) {
      const params = tinyParams();
      const optimizer = tinyOptimizer("adamw", params);
      const batches = [...Array.from({ length: steps - 1 }, () => good), bad];
      let before: unknown;
      const run = async () => {
        for await (const _ of train({ params, objective, optimizer, data: cycle(batches), steps, captureStep: true }))
          before = await bitsOf(params);
      };
      await expect(run()).rejects.toThrow(NonFiniteError);
      expect(await bitsOf(params)).toEqual(before);
      disposeTensors(params);
      optimizer.dispose();
    }
  });

  it("resumes with the bits of an uninterrupted run", async () => {
    const directory = temporaryFolder();
    const options = { captureStep: true, gradientAccumulation: 2 };
    await trained({ ...options, steps: 5, checkpoint: { directory } });
    const resumed = await trained({ ...options, steps: 8, checkpoint: { directory }, resume: true });
    const plain = await trained({ gradientAccumulation: 2 });
    expect(resumed.params).toEqual(plain.params);
    expect(resumed.state).toEqual(plain.state);
  });

  it("takes numbers of the step and further arrays anew in each replay, and captures each stage again", async () => {
    const calls: string[] = [];
    // Weighs the loss by the step and by an array of the batch; from step 6 on it is another loss.
    const objective: Objective = Object.assign(
      ((params, batch, { byStep, stage }) => {
        calls.push(stage);
        const loss = tinyLoss(params, batch);
        if (stage === "late") return loss.square();
        return loss
          .mul(
            full(
              [],
              byStep((step) => 1 / step),
            ),
          )
          .add(batch.extras.shift!.mean().mul(loss));
      }) satisfies Objective,
      { stageAt: (step: number) => (step < 6 ? "early" : "late") },
    );
    const source = () => {
      const data = tinyData(4);
      let count = 0;
      const next = () => ({ ...data.next(), extras: { shift: { data: Float32Array.of(count++, 1), shape: [2] } } });
      return { next, state: () => data.state(), restore: () => undefined };
    };
    const options = { objective, steps: 11 };
    const plain = await trained({ ...options, data: source() });
    expect(calls).toEqual([...new Array(5).fill("early"), ...new Array(6).fill("late")]);
    calls.length = 0;
    expect(await trained({ ...options, data: source(), captureStep: true })).toEqual(plain);
    expect(calls).toEqual([...new Array(3).fill("early"), ...new Array(3).fill("late")]);
  });

  it("refuses an objective that keys its random numbers by context.step, when it captures", async () => {
    const objective: Objective = (params, batch, { seed, step }) =>
      tinyLoss(params, batch).add(dropout(tinyLogits(params, batch), 0.1, { seed, stream: step }).mean());
    await expect(trained({ objective, captureStep: true })).rejects.toThrow(CaptureError);
    await expect(trained({ objective, captureStep: true })).rejects.toThrow("Use context.stream");
    await expect(trained({ captureStep: 1 as never })).rejects.toThrow(
      "[train] captureStep must be true or false; received 1.",
    );
  });

  it("tells of a bad id, gives everything back, and holds the same memory at the end of every step", async () => {
    await collectGarbage();
    const before = memory();
    const used = new Set<string>();
    const params = tinyParams();
    const optimizer = tinyOptimizer("adamw", params);
    const good = tinyData(4).next();
    const bad: Batch = { ...good, tokens: new Int32Array(4 * seqLen).fill(vocabSize) };
    const data = cycle([...Array.from({ length: 40 }, () => good), bad]);
    const run = async () => {
      for await (const event of train({ params, objective: noisy, optimizer, data, steps: 99, captureStep: true }))
        if (event.step > 4) used.add(`${memory().tensors} ${memory().liveBytes}`);
    };
    await expect(run()).rejects.toThrow(`[embedding] token id ${vocabSize} at position 0`);
    expect(used.size).toBe(1);
    disposeTensors(params);
    optimizer.dispose();
    expect(memory().tensors).toBe(before.tensors);
  });
});
