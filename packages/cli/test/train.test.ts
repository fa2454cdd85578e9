import { readMetrics } from "@llmeff/report";
import { memory, missingGpu, resetPeakMemory } from "@llmeff/tensor";
import { latestCheckpoint, loadCheckpoint } from "@llmeff/train";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sampleText, textConfig, Workplace } from "./harness.js";

let place: Workplace;
beforeEach(async () => {
  place = await Workplace.create();
  await place.write("text.txt", sampleText);
  await place.write("config.json", textConfig());
});
afterEach(() => place[Symbol.asyncDispose]());

/** Weights and curves of a run, without what depends on the clock. */
async function result(run: string) {
  const found = await latestCheckpoint(place.path("runs", run, "checkpoints"));
  const { params, optimizer } = await loadCheckpoint(found!.path);
  const values = (tensors: typeof params) =>
    Object.entries(tensors).map(([name, tensor]) => [name, Array.from(tensor.dataSync())]);
  const records = (await readMetrics(place.path("runs", run, "metrics.jsonl"))).map((record) => {
    const { seconds: _, tokensPerSecond: __, ...rest } = record;
    return rest;
  });
  return { step: found!.step, params: values(params), optimizer: values(optimizer.tensors), records };
}

describe("llmeff train", () => {
  it("trains, writes metrics and checkpoints, and says how it ended", async () => {
    const { code, stdout, stderr } = await place.run(["train", "config.json"]);
    expect(stderr).toContain("step 12: validation");
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /12 steps, 768 tokens, [\d.]+k? parameters: validation loss \d\.\d{4} ± 0\.\d{4} nats\/char/,
    );
    const { step, records } = await result("tiny");
    expect(step).toBe(12);
    expect(records.filter((record) => "loss" in record).map(({ step }) => step)).toEqual(
      Array.from({ length: 12 }, (_, i) => i + 1),
    );
    const last = records.findLast((record) => "validationLoss" in record)!;
    // A character of the sample is a byte.
    expect(last.bitsPerByte).toBeCloseTo((last.validationLoss as number) / Math.LN2, 10);
    expect(records.filter((record) => "validationLoss" in record).map(({ step, tokens }) => [step, tokens])).toEqual([
      [4, 256],
      [8, 512],
      [12, 768],
    ]);
  });

  it("interrupted and resumed, ends with the weights and curves of an uninterrupted run", async () => {
    await place.run(["train", "config.json", "--out", "runs/straight"]);
    const interrupted = await place.run(["train", "config.json"], { interruptAt: "step 4: validation" });
    expect(interrupted.code).toBe(130);
    expect(interrupted.stderr).toContain("Go on with: llmeff train config.json --resume");
    expect((await latestCheckpoint(place.path("runs/tiny/checkpoints")))!.step).toBeLessThan(12);
    const resumed = await place.run(["train", "config.json", "--resume"]);
    expect(resumed.stderr).toContain("going on from");
    expect(resumed.code).toBe(0);
    expect(await result("tiny")).toEqual(await result("straight"));
  });

  it("in bfloat16 trains with float32 masters, and goes on to the same weights", async () => {
    await place.run(["train", "config.json", "--dtype", "bfloat16", "--out", "runs/straight"]);
    await place.write("half.json", { ...textConfig(), dtype: "bfloat16" });
    expect(await place.run(["train", "half.json"], { interruptAt: "step 4: validation" })).toMatchObject({ code: 130 });
    const refused = await place.run(["train", "config.json", "--resume"]);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('dtype: was "bfloat16", is "float32"') });
    const resumed = await place.run(["train", "config.json", "--dtype", "bfloat16", "--resume"]);
    expect(resumed).toMatchObject({ code: 0, stdout: expect.stringMatching(/12 steps.*validation loss \d\.\d{4}/) });
    const found = await latestCheckpoint(place.path("runs/tiny/checkpoints"));
    const { params, optimizer } = await loadCheckpoint(found!.path);
    for (const [name, param] of Object.entries(params)) {
      const master = optimizer.tensors[`${name}.master`]!;
      expect([param.dtype, master.dtype], name).toEqual(["bfloat16", "float32"]);
      expect(param.dataSync(), name).toEqual(master.astype("bfloat16").dataSync());
    }
    expect((await result("tiny")).params).toEqual((await result("straight")).params);
    const written = await place.run(["generate", "runs/tiny", "--prompt", "the ", "--tokens", "5"]);
    expect(written).toMatchObject({ code: 0, stdout: expect.stringMatching(/^the /) });
  });

  it("in float16 finds the scale of its losses, tells of steps that overflow, and goes on to the same weights", async () => {
    const lossScale = { initialScale: 2 ** 30, growthInterval: 3, growthFactor: 4, backoffFactor: 2 ** -5 };
    const { training } = textConfig() as { training: object };
    await place.write("half.json", { ...textConfig(), dtype: "float16", training: { ...training, lossScale } });
    const straight = await place.run(["train", "half.json", "--out", "runs/straight"]);
    expect(straight).toMatchObject({ code: 0, stdout: expect.stringMatching(/12 steps.*validation loss \d\.\d{4}/) });
    expect(straight.stderr).toMatch(
      /^step 1 passed over: the gradients' norm is (Infinity|NaN) with the loss times 1,073,741,824$/m,
    );
    expect(await place.run(["train", "half.json"], { interruptAt: "step 4: validation" })).toMatchObject({ code: 130 });
    expect(await place.run(["train", "half.json", "--resume"])).toMatchObject({ code: 0 });
    const resumed = await result("tiny");
    expect(resumed).toEqual(await result("straight"));
    const steps = resumed.records.filter(({ loss }) => loss !== undefined);
    expect(steps[0]).toMatchObject({ step: 1, lossScale: 2 ** 30, skipped: true });
    expect(steps.filter(({ skipped }) => !skipped).length).toBeGreaterThan(5);
    expect(new Set(steps.map(({ lossScale }) => lossScale)).size).toBeGreaterThan(2);
    await place.write("other.json", { ...textConfig(), dtype: "float16" });
    const refused = await place.run(["train", "other.json", "--out", "runs/tiny", "--resume"]);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining("training.lossScale: was ") });
    expect(await place.run(["train", "config.json", "--dtype", "float16", "--out", "runs/option"])).toMatchObject({
      code: 0,
    });
  });

  it("runs where --device says, or tells why it can't; auto takes what there is", async () => {
    const gpu = missingGpu() === undefined ? ("cuda:0" as const) : undefined;
    const peak = () => (gpu === undefined ? 0 : memory(gpu).peakBytes);
    for (const [device, fits] of [
      ["auto", true],
      ["cuda", gpu !== undefined],
      ["cpu", true],
    ] as const) {
      if (gpu !== undefined) resetPeakMemory(gpu);
      const before = peak();
      const run = await place.run(["train", "config.json", "--device", device, "--out", `runs/${device}`]);
      expect(run.code, run.stderr).toBe(fits ? 0 : 1);
      if (!fits) expect(run.stderr).toMatch(/^\[[^\]]+\] device cuda:0 is not to be had: .*Use device "cpu"/m);
      expect(peak() > before, device).toBe(device !== "cpu" && gpu !== undefined);
    }
    const here = await place.run(["train", "config.json", "--device", "cpu", "--out", "runs/auto", "--resume"]);
    expect(here, "what was trained elsewhere goes on here").toMatchObject({ code: 0 });
  });

  it("resuming a finished run repeats its numbers", async () => {
    const first = await place.run(["train", "config.json"]);
    const again = await place.run(["train", "config.json", "--resume"]);
    expect(again.code).toBe(0);
    expect(again.stdout.split("\n")[0]).toBe(first.stdout.split("\n")[0]);
  });

  it("goes on for more steps, but not over another run and not with other settings", async () => {
    await place.run(["train", "config.json"]);
    const over = await place.run(["train", "config.json"]);
    expect(over).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/holds a run up to step 12\. Go on with --resume/),
    });
    await place.write("config.json", { ...textConfig(), seed: 4 });
    const other = await place.run(["train", "config.json", "--resume"]);
    expect(other).toMatchObject({ code: 2, stderr: expect.stringContaining("seed: was 3, is 4") });
    await place.write("config.json", textConfig());
    const longer = await place.run(["train", "config.json", "--resume", "--steps", "16"]);
    expect(longer).toMatchObject({ code: 0, stdout: expect.stringContaining("16 steps") });
  });

  it.each([
    ["a missing config", ["train", "nowhere.json"], 1, /can't read .*nowhere\.json: there is no such file/],
    ["a folder as config", ["train", "."], 1, /it is a folder/],
    ["an unknown option", ["train", "config.json", "--stpes", "3"], 2, /unknown option '--stpes'[\s\S]*--steps/],
    ["a number that is none", ["train", "config.json", "--steps", "few"], 2, /expected a positive integer/],
    ["a dtype that isn't for training", ["train", "config.json", "--dtype", "int8"], 2, /float32, bfloat16/],
    ["an unknown command", ["tran", "config.json"], 2, /unknown command 'tran'[\s\S]*train/],
    ["no command", [], 2, /Usage: llmeff/],
  ])("refuses %s", async (_, argv, code, message) => {
    const outcome = await place.run(argv);
    expect(outcome.stderr).toMatch(message);
    expect(outcome.code).toBe(code);
  });

  // Node's recursive mkdir never comes back from here.
  it.runIf(process.platform === "linux").each(["/proc/x", "/proc/x/y"])(
    "says at once that there can be no folder %s",
    async (out) => {
      expect(await place.run(["train", "config.json", "--out", out])).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^\[llmeff\] can't make the folder \/proc\/x/),
      });
    },
    10_000,
  );

  it("names a data file that is missing, unreadable as gzip, or too short", async () => {
    const withPath = (path: string) => textConfig({ data: { ...(textConfig().data as object), path } });
    await place.write("config.json", withPath("missing.txt"));
    expect(await place.run(["train", "config.json"])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/can't read .*missing\.txt: there is no such file/),
    });
    await place.write("config.json", withPath("short.txt"));
    await place.write("short.txt", "abcdefghij");
    expect(await place.run(["train", "config.json"])).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /data\.seqLen: .*short\.txt has 10 tokens, of which 9 are for training; a sequence needs 17/,
      ),
    });
  });
});
