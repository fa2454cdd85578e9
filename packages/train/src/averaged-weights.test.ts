import { FormatError, OptionError, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collect } from "../test/run.js";
import { temporaryFolder } from "../test/temporary-folder.js";
import { bitsOf, disposeTensors, tinyData, tinyLoss, tinyOptimizer, tinyParams } from "../test/tiny-model.js";
import {
  averagedWeights,
  latestCheckpoint,
  loadCheckpoint,
  modelStates,
  splitAverages,
  type TrainOptions,
  train,
} from "./index.js";

async function trained(options: Partial<TrainOptions> = {}, decay = 0.9) {
  const params = tinyParams();
  const optimizer = tinyOptimizer("adamw", params);
  using averaged = averagedWeights(params, { decay });
  const seen: number[] = [];
  const given = { params, optimizer, objective: tinyLoss, data: tinyData(4), steps: 6, modelState: averaged };
  for await (const { type } of train({ ...given, ...options }))
    if (type === "step") seen.push(params["norm.weight"]!.dataSync()[0]!);
  const bits = { ...(await bitsOf(params)), average: await bitsOf(averaged.average) };
  const norm = averaged.average["norm.weight"]!.dataSync()[0]!;
  disposeTensors(params);
  optimizer.dispose();
  return { bits, seen, norm };
}

describe("averagedWeights", () => {
  it("is the average of the parameters after each step, from the initial ones on", async () => {
    const { seen, norm } = await trained();
    // The norm's weights begin at 1.
    expect(norm).toBeCloseTo(
      seen.reduce((average, value) => 0.9 * average + 0.1 * value, 1),
      6,
    );
    expect(norm).not.toBeCloseTo(seen.at(-1)!, 4);
  });

  it("resumes with the bits of an uninterrupted run, captured or not", async () => {
    const whole = await trained();
    expect((await trained({ captureStep: true })).bits).toEqual(whole.bits);
    const directory = temporaryFolder();
    await trained({ steps: 4, checkpoint: { directory } });
    expect((await trained({ checkpoint: { directory }, resume: true })).bits).toEqual(whole.bits);
    const params = tinyParams();
    await expect(
      collect(
        train({
          ...{ params, objective: tinyLoss, data: tinyData(4), steps: 8 },
          ...{ optimizer: tinyOptimizer("adamw", params), checkpoint: { directory }, resume: true },
        }),
      ),
    ).rejects.toThrow(FormatError);
  });

  it("is told apart from the parameters in a checkpoint", async () => {
    const directory = temporaryFolder();
    const { bits } = await trained({ steps: 3, checkpoint: { directory } });
    const { params: tensors, optimizer } = await loadCheckpoint((await latestCheckpoint(directory))!.path);
    const { params, average } = splitAverages(tensors);
    expect(Object.keys(params)).toEqual(Object.keys(average!));
    expect(await bitsOf(average!)).toEqual(bits.average);
    expect(splitAverages(params).average).toBeUndefined();
    disposeTensors({ ...tensors, ...optimizer.tensors });
  });

  it("refuses a decay that is none, and states with the same names", () => {
    const params = tinyParams();
    expect(() => averagedWeights(params, { decay: 1 })).toThrow(OptionError);
    using averaged = averagedWeights(params);
    expect(() => modelStates(averaged, averaged)).toThrow('received "average.embed.weight" twice');
    const told: string[] = [];
    const own = tensor([0]);
    const both = modelStates({ tensors: { own }, update: (_, step) => told.push(`first ${step}`) }, averaged);
    both.update({}, 3);
    expect([told, Object.keys(both.tensors).length]).toEqual([["first 3"], 1 + Object.keys(params).length]);
    disposeTensors({ ...params, own });
  });
});
