/** Apart from the other tests: tensors that those leave to the garbage collector would be counted here when it runs. */
import { type Batch, type BatchSet, prefetch } from "@llmeff/data";
import { full, memory } from "@llmeff/tensor";
import { describe, expect, it, onTestFinished } from "vitest";
import { collect, cycle } from "../test/run.js";
import { temporaryFolder } from "../test/temporary-folder.js";
import {
  batchOf,
  bitsOf,
  disposeTensors,
  optimizerNames,
  tinyData,
  tinyLoss,
  tinyOptimizer,
  tinyParams,
  vocabSize,
} from "../test/tiny-model.js";
import { evaluateLoss, loadCheckpoint, train } from "./index.js";

/** A model and its optimizer that the test's end frees. */
function owned(name: (typeof optimizerNames)[number] = "adamw") {
  const params = tinyParams();
  const optimizer = tinyOptimizer(name, params);
  onTestFinished(() => {
    disposeTensors(params);
    optimizer.dispose();
  });
  return { params, optimizer, objective: tinyLoss };
}

const used = () => ({ tensors: memory().tensors, liveBytes: memory().liveBytes });

describe("native memory", () => {
  it.each(optimizerNames)("is the same at the end of each of 300 steps from step 3 on with %s", async (name) => {
    const run = owned(name);
    const atStepEnd = new Set<string>();
    let steps = 0;
    for await (const event of train({ ...run, data: prefetch(tinyData(4)), steps: 300, gradientAccumulation: 2 })) {
      if (event.type !== "step" || event.step < 3) continue;
      atStepEnd.add(JSON.stringify(used()));
      steps++;
    }
    expect(steps).toBe(298);
    expect([...atStepEnd]).toHaveLength(1);
  });

  it("is the same after checkpoints and a resume as before", async () => {
    const directory = temporaryFolder();
    const options = { ...owned(), data: tinyData(), steps: 6, checkpoint: { directory, every: 2 } };
    const running = train(options);
    await running.next();
    const before = used();
    await collect(running);
    expect(used()).toEqual(before);
    await collect(train({ ...options, data: tinyData(), steps: 8, resume: true }));
    expect(used()).toEqual(before);
    const { params, optimizer } = await loadCheckpoint(`${directory}/step-00000008`);
    disposeTensors(params);
    disposeTensors(optimizer.tensors);
    expect(used()).toEqual(before);
  });

  it("is given back when an op fails in the middle of a step, which changes no parameter", async () => {
    const run = owned();
    const good = tinyData().next();
    const bad: Batch = { ...good, tokens: Int32Array.from(good.tokens, () => vocabSize) };
    const values = await bitsOf(run.params);
    const before = used();
    await expect(
      collect(train({ ...run, data: cycle([good, bad]), steps: 3, gradientAccumulation: 2 })),
    ).rejects.toMatchObject({
      code: "ERR_INDEX",
    });
    expect(used()).toEqual(before);
    expect(await bitsOf(run.params)).toEqual(values);
  });

  it.each<[string, () => number]>([
    ["throws", () => expect.fail("no rate")],
    ["gives NaN", () => Number.NaN],
  ])("is given back when a schedule %s in the middle of a run", async (_, bad) => {
    const run = owned();
    const before = used();
    run.optimizer.learningRate = (step) => (step === 2 ? bad() : 1e-3);
    const told: number[] = [];
    const running = (async () => {
      for await (const event of train({ ...run, data: tinyData(), steps: 9 })) told.push(event.step);
    })();
    await expect(running).rejects.toThrow(/no rate|\[step 2\] learningRate must be/);
    expect(told).toEqual([1, 2]);
    // The norm of the last step stays with the optimizer.
    expect(used().tensors).toBe(before.tensors + 1);
  });

  it("is given back by an evaluation, but for what the model returns of its own", async () => {
    using own = full([1, 2], 7);
    const batches: BatchSet = { targetCount: 2, [Symbol.iterator]: () => [batchOf([[1, 2]])][Symbol.iterator]() };
    const before = used();
    expect(await evaluateLoss(() => own, {}, batches)).toMatchObject({ loss: 7 });
    expect(own.disposed).toBe(false);
    expect(used()).toEqual(before);
  });
});
