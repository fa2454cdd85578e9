import { type Batch, IGNORE_INDEX } from "@llmeff/data";
import { engine } from "@llmeff/native";
import { AdamW, route, SGD } from "@llmeff/optim";
import { FormatError, full, memory, NonFiniteError, OptionError, scope, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it, vi } from "vitest";
import { collect, cycle, stepsOf } from "../test/run.js";
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
} from "../test/tiny-model.js";
import {
  averagedWeights,
  type LossScaleOptions,
  latestCheckpoint,
  type Objective,
  type TrainOptions,
  train,
} from "./index.js";
import { LossScaler } from "./loss-scale.js";

type Params = Record<string, Tensor>;
const one = cycle([batchOf([[0]])]);

describe("LossScaler", () => {
  it("doubles after growthInterval good steps and halves after an overflow", () => {
    const scaler = new LossScaler({ initialScale: 4, growthInterval: 2 });
    const scales = [false, false, true, false, false, false, true, true].map((overflowed) => {
      scaler.update(overflowed);
      return scaler.scale;
    });
    // good 4, good → 8; overflow → 4, which counts anew: good, good → 8, good; overflow → 4, → 2.
    expect(scales).toEqual([4, 8, 4, 4, 8, 8, 4, 2]);
  });

  it("stays between 1 and 2^64", () => {
    const scaler = new LossScaler({
      initialScale: 2,
      growthFactor: 2 ** 60,
      growthInterval: 1,
      backoffFactor: 2 ** -70,
    });
    scaler.update(false);
    scaler.update(false);
    expect([scaler.scale, scaler.canFall]).toEqual([2 ** 64, true]);
    scaler.update(true);
    expect([scaler.scale, scaler.canFall]).toEqual([1, false]);
    scaler.update(true);
    expect(scaler.scale).toBe(1);
  });

  it("has PyTorch's defaults", () => {
    expect(new LossScaler().state).toEqual({
      ...{ scale: 65536, goodSteps: 0 },
      ...{ growthFactor: 2, backoffFactor: 0.5, growthInterval: 2000 },
    });
  });

  it.each<[object, string]>([
    [{ initialScale: 1000 }, "lossScale.initialScale must be a power of two from 1 to 2^64; received 1000"],
    [{ initialScale: 0.5 }, "received 0.5"],
    [{ initialScale: 2 ** 65 }, "received 36893488147419103000"],
    [{ initialScale: 65536 * (1 + 2 ** -52) }, "received 65536.00000000001"],
    [{ growthFactor: 1 }, "lossScale.growthFactor must be a power of two above 1; received 1"],
    [{ growthFactor: 3 }, "received 3"],
    [{ growthFactor: Number.POSITIVE_INFINITY }, "received Infinity"],
    [{ backoffFactor: 1 }, "lossScale.backoffFactor must be a power of two below 1; received 1"],
    [{ backoffFactor: 0 }, "received 0"],
    [{ backoffFactor: "0.5" }, "received 0.5"],
    [{ growthInterval: 0 }, "lossScale.growthInterval must be a positive integer; received 0"],
    [{ growthRate: 2 }, 'there is no option "lossScale.growthRate"'],
  ])("refuses %j", (lossScale, message) => {
    const params = tinyParams();
    const options = { params, objective: tinyLoss, optimizer: new AdamW(params), data: tinyData(), steps: 1 };
    const start = () => train({ ...options, lossScale: lossScale as LossScaleOptions });
    expect(start).toThrow(OptionError);
    expect(start).toThrow(message);
    expect(() => train({ ...options, lossScale: 2 as never })).toThrow("lossScale must be an object; received 2");
    disposeTensors(params);
  });
});

/** A run of the tiny model in float32, or the same rounded to another dtype. */
async function trained(options: Partial<TrainOptions>, name: (typeof optimizerNames)[number] = "adamw") {
  const params = tinyParams();
  const optimizer = tinyOptimizer(name, params);
  const all = { params, objective: tinyLoss, optimizer, data: tinyData(4), steps: 8, clock: () => 0, ...options };
  const events = stepsOf(await collect(train(all)));
  const bits = { params: await bitsOf(params), state: await bitsOf(optimizer.stateDict().tensors) };
  disposeTensors(params);
  optimizer.dispose();
  return { scales: events.map(({ lossScale }) => lossScale), events: events.map(withoutScale), ...bits };
}
const withoutScale = ({ lossScale: _, ...event }: ReturnType<typeof stepsOf>[number]) => event;

describe("train with lossScale", () => {
  it.each(optimizerNames)("changes no bit where nothing overflows or vanishes: float32, %s", async (name) => {
    const whole = tinyData(4).next();
    const masked: Batch = { ...whole, targets: whole.targets.map((id, i) => (i % 3 === 0 ? IGNORE_INDEX : id)) };
    const empty: Batch = { ...whole, targets: whole.targets.map(() => IGNORE_INDEX) };
    for (const gradientAccumulation of [1, 3]) {
      for (const captureStep of [false, true]) {
        const options = { gradientAccumulation, captureStep };
        const data = () => cycle([whole, masked, whole, whole, masked, whole, empty]);
        const { scales: none, ...plain } = await trained({ ...options, data: data() }, name);
        const lossScale = { initialScale: 2 ** 10, growthFactor: 16, growthInterval: 3 };
        const { scales, ...scaled } = await trained({ ...options, data: data(), lossScale }, name);
        expect(scaled).toEqual(plain);
        expect(none).toEqual(Array(8).fill(undefined));
        expect(scales).toEqual([10, 10, 10, 14, 14, 14, 18, 18].map((exponent) => 2 ** exponent));
      }
    }
  });

  /** One float16 weight whose gradient is `slope`. */
  async function stepsOfSlope(slope: number, options: Partial<TrainOptions> = {}, maxGradNorm?: number) {
    const params: Params = { w: tensor([1, 2]).astype("float16") };
    const optimizer = new SGD(params, { learningRate: 1, ...(maxGradNorm !== undefined && { maxGradNorm }) });
    const objective: Objective = ({ w }) => w!.slice(0, 0, 1).mul(slope).sum();
    const events = stepsOf(await collect(train({ params, objective, optimizer, data: one, steps: 1, ...options })));
    const master = [...optimizer.stateDict().tensors["w.master"]!.dataSync()];
    const { stepCount } = optimizer;
    disposeTensors(params);
    optimizer.dispose();
    return { events, master, stepCount };
  }

  it("saves gradients that float16 can't hold", async () => {
    // The smallest number of float16 is 2^-24; the slope is 2^-6 · 2^-20 in two factors that it can hold.
    const tiny: Objective = ({ w }) =>
      w!
        .slice(0, 0, 1)
        .mul(2 ** -6)
        .mul(2 ** -20)
        .sum();
    const { master } = await stepsOfSlope(1, { objective: tiny });
    expect(master).toEqual([Math.fround(1 - 2 ** -26), 2]);
    const unscaled = await stepsOfSlope(1, { objective: tiny, lossScale: false });
    expect(unscaled.master).toEqual([1, 2]);
    expect(unscaled.events[0]).not.toHaveProperty("lossScale");
  });

  it("clips gradients after they are scaled back", async () => {
    // A norm of 1/2 isn't clipped to 1, though 2^14 stood in its place; one of 2 is clipped to 1, up to the 1e-6 in the factor.
    const small = await stepsOfSlope(0.5, { lossScale: { initialScale: 2 ** 15 } }, 1);
    expect(small).toMatchObject({ master: [0.5, 2], events: [{ gradNorm: 0.5, lossScale: 2 ** 15, skipped: false }] });
    const large = await stepsOfSlope(2, { lossScale: { initialScale: 1024 } }, 1);
    expect(large.events[0]!.gradNorm).toBe(2);
    expect(large.master[0]).toBeCloseTo(0, 6);
  });

  it.each([
    ["an optimizer", (params: Params) => new AdamW(params, { maxGradNorm: 0.01 })],
    ["routes", (params: Params) => route(params, [{ optimizer: (rest) => new AdamW(rest) }], { maxGradNorm: 0.01 })],
  ] as const)("measures the norm of a step once, for its overflow and for the clipping of %s", async (_, make) => {
    const norms = vi.spyOn(engine().op, "globalNorm");
    try {
      const measured = async (lossScale: TrainOptions["lossScale"]) => {
        norms.mockClear();
        const params = tinyParams();
        const optimizer = make(params);
        const options = { params, objective: tinyLoss, optimizer, data: tinyData(4), steps: 3, clock: () => 0 };
        const events = stepsOf(await collect(train({ ...options, ...(lossScale && { lossScale }) })));
        const bits = await bitsOf(params);
        disposeTensors(params);
        optimizer.dispose();
        return { calls: norms.mock.calls.length, norms: events.map(({ gradNorm }) => gradNorm), bits };
      };
      const plain = await measured(false);
      expect(plain.calls).toBe(3);
      expect(await measured({ initialScale: 1024 })).toEqual(plain);
    } finally {
      norms.mockRestore();
    }
  });

  it("skips steps that overflow until the scale fits, and is then as if it had begun with that scale", async () => {
    // 4 · 2^16, 4 · 2^15 and 4 · 2^14 exceed 65504; 4 · 2^13 doesn't.
    const { events, master, stepCount } = await stepsOfSlope(4, { steps: 5 });
    expect(events.map(({ lossScale, skipped, gradNorm }) => [lossScale, skipped, gradNorm])).toEqual([
      [2 ** 16, true, Number.POSITIVE_INFINITY],
      [2 ** 15, true, Number.POSITIVE_INFINITY],
      [2 ** 14, true, Number.POSITIVE_INFINITY],
      [2 ** 13, false, undefined],
      [2 ** 13, false, undefined],
    ]);
    expect(events.map(({ loss }) => loss)).toEqual([4, 4, 4, 4, -12]);
    expect([master, stepCount]).toEqual([[-7, 2], 2]);
    const direct = await stepsOfSlope(4, { steps: 2, lossScale: { initialScale: 2 ** 13 } });
    expect([direct.master, direct.stepCount]).toEqual([master, stepCount]);
  });

  it.each([false, true])("leaves everything as it was in such a step: captured %s", async (captureStep) => {
    const params = half(tinyParams());
    const averaged = averagedWeights(params, { decay: 0.5 });
    const updates: number[] = [];
    const modelState = {
      ...averaged,
      update: (...[, step]: [unknown, number]) => updates.push(step) && averaged.update({}, step),
    };
    const schedule: number[] = [];
    const learningRate = (step: number) => {
      schedule.push(step);
      return 1e-3;
    };
    const optimizer = new AdamW(params, { learningRate, maxGradNorm: 1 });
    const look = async () => ({
      params: await bitsOf(params),
      state: await bitsOf(optimizer.stateDict().tensors),
      average: await bitsOf(averaged.tensors),
      meta: optimizer.stateDict().meta,
    });
    const before = memory().tensors;
    let last = await look();
    const skips: boolean[] = [];
    // The logits' gradients are below 1 / 48; those of the head's weights reach the limit.
    const run = train({
      ...{ params, modelState, optimizer, data: tinyData(4), steps: 12, captureStep, objective: tinyLoss },
      lossScale: { initialScale: 2 ** 24, growthInterval: 2, growthFactor: 4, backoffFactor: 2 ** -6 },
    });
    for await (const event of run) {
      if (event.type !== "step") continue;
      skips.push(event.skipped);
      const now = await look();
      if (event.skipped) expect(now).toEqual(last);
      else for (const key of ["params", "state", "average", "meta"] as const) expect(now[key]).not.toEqual(last[key]);
      last = now;
    }
    expect(skips[0]).toBe(true);
    expect(skips.slice(2)).toContain(true); // grown too high again
    const taken = skips.flatMap((skipped, i) => (skipped ? [] : [i + 1]));
    expect(taken.length).toBeGreaterThan(3);
    expect(updates).toEqual(taken);
    expect(optimizer.stepCount).toBe(taken.length);
    expect(Math.max(...schedule)).toBe(taken.length - 1);
    expect(memory().tensors).toBe(before + 1); // the optimizer's last norm
    averaged[Symbol.dispose]();
    optimizer.dispose();
    disposeTensors(params);
  });

  it("has the bits of training without captureStep", async () => {
    const run = async (captureStep: boolean, gradientAccumulation: number) => {
      const params = half(tinyParams());
      const optimizer = new AdamW(params, { learningRate: 5e-3, maxGradNorm: 1 });
      const lossScale = { initialScale: 2 ** 20, growthInterval: 3, growthFactor: 16 };
      const all = { params, objective: tinyLoss, optimizer, data: tinyData(4), steps: 14, clock: () => 0, lossScale };
      const events = stepsOf(await collect(train({ ...all, captureStep, gradientAccumulation })));
      const bits = [await bitsOf(params), await bitsOf(optimizer.stateDict().tensors)];
      disposeTensors(params);
      optimizer.dispose();
      expect(new Set(events.map(({ skipped }) => skipped)).size).toBe(2);
      return { events, bits };
    };
    for (const gradientAccumulation of [1, 2])
      expect(await run(true, gradientAccumulation)).toEqual(await run(false, gradientAccumulation));
  });

  it("learns in float16 as in float32", async () => {
    const run = async (params: Params) => {
      const optimizer = new AdamW(params, { learningRate: 1e-2, maxGradNorm: 1 });
      const all = { params, objective: tinyLoss, optimizer, data: tinyData(), steps: 60 };
      const events = stepsOf(await collect(train(all)));
      disposeTensors(params);
      optimizer.dispose();
      return events.at(-1)!.loss;
    };
    const wide = await run(tinyParams());
    expect(wide).toBeLessThan(1.5);
    expect(Math.abs((await run(half(tinyParams()))) - wide)).toBeLessThan(0.05);
  });

  it("ends the run when gradients overflow with the lowest scale too", async () => {
    // The loss is 2 · (60000 − 50000), its slope 120000.
    const half = (w: Tensor) => w.slice(0, 0, 1).mul(60000).sub(50000);
    const run = stepsOfSlope(0, {
      objective: ({ w }) => half(w!).add(half(w!)).sum(),
      steps: 50,
      maxSkippedSteps: 3,
      lossScale: { initialScale: 64 },
    });
    // Six steps for 64 … 2, and three with 1.
    await expect(run).rejects.toThrow(NonFiniteError);
    await expect(run).rejects.toThrow("the gradients' norm is Infinity at step 9, the 3rd such step in a row");
  });

  it("ends the run at a loss that isn't finite, which no scale mends", async () => {
    const objective: Objective = ({ w }) => w!.mul(Number.NaN).sum();
    await expect(stepsOfSlope(1, { objective })).rejects.toThrow("[train] loss is NaN at step 1");
  });

  it("takes the loss itself, however high the scale", async () => {
    const { events } = await stepsOfSlope(2 ** -20, {
      lossScale: { initialScale: 2 ** 20 },
      objective: ({ w }) =>
        w!
          .slice(0, 0, 1)
          .astype("float32")
          .mul(2 ** -20)
          .add(2 ** 120)
          .sum(),
    });
    expect(events[0]).toMatchObject({ loss: 2 ** 120, skipped: false });
  });
});

const half = (params: Params): Params =>
  scope(() => Object.fromEntries(Object.entries(params).map(([name, x]) => [name, x.astype("float16")])));

describe("resuming with lossScale", () => {
  const rule = { initialScale: 2 ** 20, growthInterval: 4, growthFactor: 16 };
  async function run(directory: string, options: Partial<TrainOptions> = {}, stopAt?: number) {
    const params = half(tinyParams());
    const optimizer = new AdamW(params, { learningRate: 5e-3, maxGradNorm: 1 });
    const controller = new AbortController();
    const events: object[] = [];
    const all: TrainOptions = {
      ...{ params, objective: tinyLoss, optimizer, data: tinyData(4), steps: 16, clock: () => 0, lossScale: rule },
      ...{ checkpoint: { directory, every: 100 }, signal: controller.signal, ...options },
    };
    try {
      for await (const event of train(all)) {
        if (event.type !== "step") continue;
        events.push(event);
        if (event.step === stopAt) controller.abort();
      }
    } catch (error) {
      if (!controller.signal.aborted) throw error;
    } finally {
      disposeTensors(params);
    }
    const bits = await bitsOf(optimizer.stateDict().tensors);
    optimizer.dispose();
    return { events, bits };
  }

  it("goes on bit by bit wherever it was interrupted: after an overflow, and between two growths", async () => {
    const folder = temporaryFolder();
    const straight = await run(`${folder}/straight`);
    const scales = straight.events.map((event) => (event as { lossScale: number }).lossScale);
    expect(new Set(scales).size).toBeGreaterThan(3);
    for (const stopAt of [1, 3, 6, 9, 12]) {
      const directory = `${folder}/${stopAt}`;
      const first = await run(directory, {}, stopAt);
      expect(first.events).toHaveLength(stopAt);
      const rest = await run(directory, { resume: true });
      expect({ events: [...first.events, ...rest.events], bits: rest.bits }).toEqual(straight);
    }
  });

  it("stores scale and counter, and refuses another rule", async () => {
    const folder = temporaryFolder();
    const directory = `${folder}/run`;
    await run(directory, {}, 3);
    const { state } = (await latestCheckpoint(directory))!;
    expect(state.lossScale).toMatchObject({ growthFactor: 16, backoffFactor: 0.5, growthInterval: 4 });
    const { scale } = state.lossScale!;
    expect(Number.isInteger(Math.log2(scale))).toBe(true);
    const again = (lossScale: false | LossScaleOptions) => run(directory, { resume: true, lossScale });
    await expect(again({ ...rule, growthInterval: 5, backoffFactor: 0.25 })).rejects.toThrow(FormatError);
    await expect(again({ ...rule, growthInterval: 5, backoffFactor: 0.25 })).rejects.toThrow(
      "lossScale.backoffFactor was 0.5, is 0.25; lossScale.growthInterval was 4, is 5",
    );
    await expect(again(false)).rejects.toThrow('lossScale was "on", is "off"');
    await again({ ...rule, initialScale: 2 }); // decides nothing any more
  });
});

describe("gradient accumulation in 16 bits", () => {
  it.each([
    ["bfloat16", false],
    ["bfloat16", true],
    ["float16", false],
  ] as const)("adds up in float32: %s, captured %s", async (dtype, captureStep) => {
    // Gradients 2^12 / 8 and 7 times 1 / 8: neither dtype has 512.875.
    const params: Params = { w: full([1], 0.5).astype(dtype) };
    const optimizer = new SGD(params, { learningRate: 2 ** -10, maxGradNorm: Number.POSITIVE_INFINITY });
    const slopes = [2 ** 12, ...Array<number>(7).fill(1)];
    const batches = slopes.map((slope): Batch => ({ ...batchOf([[slope]]), tokens: Int32Array.of(slope) }));
    const objective: Objective = ({ w }, { tokens }) => w!.mul(tokens.astype(dtype).sum()).sum();
    const options = { gradientAccumulation: 8, steps: 4, captureStep, lossScale: false };
    const events = stepsOf(await collect(train({ params, objective, optimizer, data: cycle(batches), ...options })));
    expect(events.map(({ gradNorm }) => gradNorm)).toEqual(Array(4).fill(512.875));
    disposeTensors(params);
    optimizer.dispose();
  });
});
