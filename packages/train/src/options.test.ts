import { AdamW, type Optimizer } from "@llmeff/optim";
import { OptionError, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collect, cycle } from "../test/run.js";
import { batchOf } from "../test/tiny-model.js";
import { type TrainOptions, train } from "./index.js";

describe("options of train", () => {
  const params = { w: tensor([1]) };
  const valid: TrainOptions = {
    params,
    objective: (p) => p.w!.sum(),
    optimizer: new AdamW(params, {}),
    data: cycle([batchOf([[1]])]),
    steps: 1,
  };
  const refused: [string, unknown, RegExp][] = [
    ["steps", 0, /^\[train\] steps must be a positive integer; received 0\.$/],
    ["steps", 2.5, /steps must be a positive integer; received 2\.5/],
    ["steps", "10", /steps must be a positive integer; received "10"/],
    ["params", {}, /params must hold at least one tensor/],
    ["params", { w: 1 }, /params\["w"\] must be a Tensor; received 1/],
    ["params", { __metadata__: params.w }, /params must have names .* received "__metadata__"/],
    ["params", undefined, /params must be an object; received undefined/],
    ["objective", null, /objective must be a function; received null/],
    [
      "optimizer",
      {},
      /optimizer must have the methods step, stateDict, loadStateDict; it lacks step, stateDict, loadStateDict/,
    ],
    [
      "optimizer",
      new AdamW({ w: tensor([1]) }),
      /optimizer must be made .* received one whose "w" is another tensor\./,
    ],
    ["optimizer", new AdamW({ v: params.w }), /optimizer must be made .* received one without "w"\./],
    ["params", { constructor: params.w }, /optimizer must be made .* received one without "constructor"\./],
    ["data", [], /data must be an object; received an array/],
    ["gradientAccumulation", -1, /gradientAccumulation must be a positive integer; received -1/],
    ["evaluateEvery", 0, /evaluateEvery must be a positive integer/],
    ["evaluate", 3, /evaluate must be a function; received 3/],
    ["stopWhen", () => true, /stopWhen without evaluate/],
    ["checkpoint", { directory: "" }, /checkpoint\.directory must be a path; received ""/],
    ["checkpoint", { directory: "x", every: 0 }, /checkpoint\.every must be a positive integer/],
    ["checkpoint", { directory: "x", keepLast: 0 }, /checkpoint\.keepLast must be a positive integer/],
    [
      "checkpoint",
      { directory: "x", evry: 1 },
      /there is no option "checkpoint\.evry"\. Options: directory, every, keepLast/,
    ],
    ["resume", true, /resume needs checkpoint/],
    ["resume", 1, /resume must be true or false; received 1/],
    ["seed", 0.5, /seed must be an integer; received 0\.5/],
    ["config", "x", /config must be an object; received "x"/],
    ["config", { seed: 1n }, /config must go through JSON: .*BigInt/],
    ["maxSkippedSteps", 0, /maxSkippedSteps must be a positive integer/],
    ["signal", {}, /signal must be an AbortSignal; received an object of Object/],
    ["clock", 7, /clock must be a function; received 7/],
    ["step", 10, /there is no option "step"\. Options: params, /],
  ];
  it.each(refused)("refuses %s: %o at the call", (name, value, message) => {
    const call = () => train({ ...valid, [name]: value } as TrainOptions);
    expect(call).toThrow(OptionError);
    expect(call).toThrow(message);
  });

  it("takes an optimizer of further parameters, and one that doesn't tell its own", async () => {
    const further = { ...params, other: tensor([2]) };
    const inner = new AdamW(params);
    const silent = {
      learningRate: 0,
      step: (grads: typeof params) => inner.step(grads),
      gradNorm: () => inner.gradNorm(),
      stateDict: () => inner.stateDict(),
      loadStateDict: () => {},
    } as unknown as Optimizer;
    for (const optimizer of [new AdamW(further), silent]) {
      expect(await collect(train({ ...valid, optimizer }))).toHaveLength(1);
    }
  });

  it("refuses an objective that returns no tensor, and an evaluation that returns no numbers", async () => {
    const objective = (() => 1) as unknown as TrainOptions["objective"];
    await expect(collect(train({ ...valid, objective }))).rejects.toThrow("[train] objective must return a Tensor");
    const vector = (p: Record<string, Tensor>) => p.w!.expand([2]);
    await expect(collect(train({ ...valid, objective: vector }))).rejects.toThrow(/must have one element/);
    const evaluate = (() => ({ loss: "low" })) as unknown as NonNullable<TrainOptions["evaluate"]>;
    await expect(collect(train({ ...valid, evaluate }))).rejects.toThrow('received string as "loss"');
  });
});
