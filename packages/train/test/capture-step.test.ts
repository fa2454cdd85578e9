/** Training of a small Transformer in captured steps, beside the same steps as they are: equal bits in parameters, state and losses. */
import { Transformer } from "@llmeff/models";
import { AdamW, cosine, type Optimizer, Sonew } from "@llmeff/optim";
import {
  add,
  captureStep,
  checkpoint,
  type DType,
  dropout,
  type HostNumber,
  hostNumber,
  memory,
  mul,
  scope,
  sync,
  type Tensor,
  tensor,
  valueAndGrad,
} from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { bitsOf } from "./tiny-model.js";

type Params = Record<string, Tensor>;
interface Batch {
  tokens: Tensor;
  targets: Tensor;
}

const model = new Transformer({
  vocabSize: 17,
  dModel: 32,
  numLayers: 2,
  numHeads: 2,
  maxSeqLen: 16,
  attention: [{ kind: "dot" }, { kind: "simplicial", w1: 8, w2: 4 }],
});
const mixture = new Transformer({
  vocabSize: 17,
  dModel: 32,
  numLayers: 2,
  numHeads: 2,
  maxSeqLen: 16,
  experts: { numExperts: 4, auxCoef: 0.01, zCoef: 0.001, capacityFactor: 1.25, jitter: 0.1 },
});
/** Of shapes and sizes of heads that the tensor cores of every GPU take. */
const wide = new Transformer({
  vocabSize: 17,
  dModel: 64,
  numLayers: 2,
  numHeads: 1,
  maxSeqLen: 16,
  attention: [{ kind: "dot" }, { kind: "simplicial", w1: 8, w2: 4 }],
  experts: { numExperts: 4, expertDim: 96 },
});
const shape = [2, 16];
const idsAt = (step: number) => Int32Array.from({ length: 32 }, (_, i) => (i * i + 5 * step + 3) % 17);
const steps = 10;

/** A way to train: what a step does with its batches, of which it gets `microBatches`. */
interface Case {
  dtype?: DType;
  optimizer: (params: Params) => Optimizer;
  microBatches?: number;
  /** Default `model`. */
  model?: Transformer;
  loss?: (params: Params, batch: Batch, stream: HostNumber) => Tensor;
}

const schedule = cosine(1e-2, 20, { warmupSteps: 3 });

/** Logits with dropout before the head, by the key of the step. */
function lossWithDropout(params: Params, batch: Batch, stream: HostNumber): Tensor {
  const hidden = dropout(model.hidden(params, batch.tokens), 0.2, { seed: 7, stream });
  return mul(hidden, hidden).mean().add(model.loss(params, batch));
}

/** The loss of a mixture of experts, whose router's jitter differs from step to step. */
function lossOfMixture(params: Params, batch: Batch, stream: HostNumber): Tensor {
  return mixture.lossParts(params, batch, { jitterKey: (seed) => ({ seed, stream }) }).loss;
}

const adamw = (options: object) => (params: Params) => new AdamW(params, { learningRate: schedule, ...options });
const cases: Record<string, Case> = {
  "AdamW with a schedule and clipping": { optimizer: adamw({ maxGradNorm: 0.5, weightDecay: 0.1, decay: "matrices" }) },
  "AdamW with amsgrad and groups": {
    optimizer: adamw({
      amsgrad: true,
      groups: [{ params: /norm/, learningRate: (step: number) => 1e-3 / (step + 1) }],
    }),
  },
  "SONew with a graft": { optimizer: (params) => new Sonew(params, { learningRate: schedule, maxGradNorm: 1 }) },
  "SONew by columns with relative eps": {
    optimizer: (params) =>
      new Sonew(params, {
        learningRate: schedule,
        order: "col",
        chain: "row",
        vectors: "adam",
        epsMode: "relative",
        biasCorrection: true,
      }),
  },
  "SONew with normed RMSProp": {
    optimizer: (params) => new Sonew(params, { learningRate: schedule, graft: "rmspropNorm" }),
  },
  "bfloat16 with masters": { dtype: "bfloat16", optimizer: adamw({ maxGradNorm: 1 }) },
  "SONew of bfloat16": {
    dtype: "bfloat16",
    optimizer: (params) => new Sonew(params, { learningRate: schedule, maxGradNorm: 1 }),
  },
  dropout: { optimizer: adamw({}), loss: lossWithDropout },
  "a mixture of experts": { optimizer: adamw({ maxGradNorm: 1 }), model: mixture, loss: lossOfMixture },
  "a mixture of experts and 2-simplicial attention in bfloat16": {
    dtype: "bfloat16",
    optimizer: adamw({ maxGradNorm: 1 }),
    model: wide,
    loss: (params, batch) => wide.loss(params, batch),
  },
  accumulation: { optimizer: adamw({ maxGradNorm: 1 }), microBatches: 6, loss: lossWithDropout },
  checkpoint: {
    optimizer: adamw({ maxGradNorm: 1 }),
    loss: (params, batch, stream) => checkpoint((p: Params, b: Batch) => lossWithDropout(p, b, stream), params, batch),
  },
};

/** One step on all micro-batches. */
function trainStep(
  { loss = model.loss.bind(model), microBatches = 1 }: Case,
  params: Params,
  optimizer: Optimizer,
  inputs: Params,
  at: () => number,
) {
  const stream = hostNumber(at);
  const parts = Array.from({ length: microBatches }, (_, i) =>
    valueAndGrad(
      (p: Params) =>
        mul(loss(p, { tokens: inputs[`tokens${i}`]!, targets: inputs[`targets${i}`]! }, stream), 1 / microBatches),
      params,
    ),
  );
  const grads = Object.fromEntries(
    Object.keys(params).map((name) => [name, parts.map(({ grads }) => grads[name]!).reduce((a, b) => add(a, b))]),
  );
  optimizer.step(grads);
  return parts.map(({ value }) => value).reduce((a, b) => add(a, b));
}

function inputsAt(step: number, microBatches = 1): Record<string, Int32Array> {
  return Object.fromEntries(
    Array.from({ length: microBatches }, (_, i) => [
      [`tokens${i}`, idsAt(7 * step + i)],
      [`targets${i}`, idsAt(7 * step + i + 1)],
    ]).flat(),
  );
}

function run(one: Case) {
  const params = (one.model ?? model).init(1, { dtype: one.dtype ?? "float32" });
  const optimizer = one.optimizer(params);
  const counter = { step: 0 };
  const step = (inputs: Params) => trainStep(one, params, optimizer, inputs, () => counter.step);
  const inputs = Object.fromEntries(
    Object.keys(inputsAt(0, one.microBatches)).map((name) => [name, { shape, dtype: "int32" as const }]),
  );
  return { params, optimizer, counter, step, capture: () => captureStep(step, { inputs }) };
}

const tensors = (inputs: Record<string, Int32Array>) =>
  Object.fromEntries(Object.entries(inputs).map(([name, ids]) => [name, tensor(ids, { shape })]));

async function stateOf({ params, optimizer }: { params: Params; optimizer: Optimizer }) {
  const { tensors: arrays, meta } = optimizer.stateDict();
  return { params: await bitsOf(params), arrays: await bitsOf(arrays), meta, norm: await optimizer.gradNorm() };
}

describe("captured training", () => {
  it.each(Object.entries(cases))("has the bits of uncaptured training: %s", async (_name, one) => {
    const [plain, captured] = [run(one), run(one)];
    using step = captured.capture();
    const losses: Tensor[] = [];
    const wanted: number[] = [];
    for (let i = 0; i < steps; i++) {
      plain.counter.step = captured.counter.step = i;
      const inputs = inputsAt(i, one.microBatches);
      wanted.push(scope(() => plain.step(tensors(inputs)).itemSync()));
      losses.push(step(inputs));
      expect(captured.optimizer.stepCount).toBe(i + 1);
      expect(captured.optimizer.learningRate).toBe(plain.optimizer.learningRate);
      if (i === 5) expect(await captured.optimizer.gradNorm()).toBe(await plain.optimizer.gradNorm());
    }
    expect(step.mode).toBe("captured");
    expect(await Promise.all(losses.map((loss) => loss.item()))).toEqual(wanted);
    expect(await stateOf(captured)).toEqual(await stateOf(plain));
    if (captured.optimizer instanceof Sonew)
      expect(await captured.optimizer.droppedEdges()).toBe(await (plain.optimizer as Sonew<Tensor>).droppedEdges());
  });

  it("leaves parameters as they are in a replay with a NaN among the gradients, and goes on with the next", async () => {
    const scaled = {
      optimizer: adamw({ maxGradNorm: 1 }),
      loss: (params: Params, batch: Batch & { scale?: Tensor }) => model.loss(params, batch).mul(batch.scale!),
    };
    const make = () => {
      const { params, optimizer } = run(scaled);
      const step = ({ tokens, targets, scale }: Params) => {
        const batch = { tokens: tokens!, targets: targets!, scale: scale! };
        const { value, grads } = valueAndGrad((p: Params) => scaled.loss(p, batch), params);
        optimizer.step(grads);
        return value;
      };
      return { params, optimizer, step };
    };
    const [plain, captured] = [make(), make()];
    const form = { shape, dtype: "int32" } as const;
    using step = captureStep(captured.step, { inputs: { tokens: form, targets: form, scale: { shape: [] } } });
    for (const [i, scale] of [1, 1, 1, Number.NaN, 1, Number.POSITIVE_INFINITY, 1, 1].entries()) {
      const before = await bitsOf(captured.params);
      const inputs = { tokens: idsAt(i), targets: idsAt(i + 1), scale: Float32Array.of(scale) };
      const value = step(inputs);
      scope(() => plain.step({ ...tensors({ tokens: idsAt(i), targets: idsAt(i + 1) }), scale: tensor(scale) }));
      expect(Number.isFinite(await value.item())).toBe(Number.isFinite(scale));
      expect(Number.isFinite(await captured.optimizer.gradNorm())).toBe(Number.isFinite(scale));
      if (!Number.isFinite(scale)) expect(await bitsOf(captured.params)).toEqual(before);
    }
    expect(await stateOf(captured)).toEqual(await stateOf(plain));
  });

  it("leaves parameters as they are in a replay with a bad id, as without a capture", async () => {
    const one: Case = { optimizer: adamw({ maxGradNorm: 1 }), microBatches: 5 };
    const [plain, captured] = [run(one), run(one)];
    using step = captured.capture();
    for (let i = 0; i < 7; i++) {
      const inputs = inputsAt(i, 5);
      if (i === 4) inputs.tokens3 = inputs.tokens3!.with(9, 17);
      const before = await bitsOf(captured.params);
      const value = step(inputs);
      const wanted = scope(() => plain.step(tensors(inputs)));
      if (i === 4) {
        await expect(value.item()).rejects.toThrow("[embedding] token id 17 at position 9");
        await expect(wanted.item()).rejects.toThrow("[embedding] token id 17 at position 9");
        await expect(captured.optimizer.gradNorm()).rejects.toThrow("token id 17");
        expect(await bitsOf(captured.params)).toEqual(before);
      } else expect(await value.item()).toBe(await wanted.item());
    }
    expect(await stateOf(captured)).toEqual(await stateOf(plain));
    await sync();
  });

  it("takes two steps of an optimizer in one captured step", async () => {
    const one: Case = { optimizer: adamw({ maxGradNorm: 0.5 }) };
    const [plain, captured] = [run(one), run(one)];
    const twice = (of: typeof plain) => (inputs: Params) => [of.step(inputs), of.step(inputs)] as const;
    const form = { shape, dtype: "int32" } as const;
    const inputs: Record<string, typeof form> = { tokens0: form, targets0: form };
    using step = captureStep(twice(captured), { inputs, warmup: 1 });
    for (let i = 0; i < 5; i++) {
      step(inputsAt(i));
      scope(() => void twice(plain)(tensors(inputsAt(i))));
    }
    expect(captured.optimizer.stepCount).toBe(10);
    expect(await stateOf(captured)).toEqual(await stateOf(plain));
  });

  it("goes on from a saved state, and with another learning rate, between replays", async () => {
    const one: Case = { optimizer: adamw({ maxGradNorm: 1 }) };
    const [plain, captured] = [run(one), run(one)];
    using step = captured.capture();
    const both = (i: number) => {
      step(inputsAt(i)).dispose();
      scope(() => void plain.step(tensors(inputsAt(i))));
    };
    for (let i = 0; i < 5; i++) both(i);
    const saved = run(one);
    for (const { optimizer } of [plain, captured]) optimizer.loadStateDict(saved.optimizer.stateDict());
    expect(captured.optimizer.stepCount).toBe(0);
    for (let i = 0; i < 3; i++) both(i);
    for (const { optimizer } of [plain, captured]) optimizer.learningRate = 0.5;
    both(9);
    scope(() => void captured.step(tensors(inputsAt(10)))); // uncaptured, in between
    scope(() => void plain.step(tensors(inputsAt(10))));
    both(11);
    expect(await stateOf(captured)).toEqual(await stateOf(plain));
  });

  it("refuses a replay whose parameters are no longer at one step, and a rate that is none, with nothing changed", async () => {
    const one: Case = {
      optimizer: (params) => new AdamW(params, { learningRate: (i) => (i === 5 ? Number.NaN : 0.01) }),
    };
    const captured = run(one);
    using step = captured.capture();
    for (let i = 0; i < 5; i++) step(inputsAt(i)).dispose();
    const before = await bitsOf(captured.params);
    expect(() => step(inputsAt(5))).toThrow("[AdamW] [step 5] learningRate must be");
    captured.optimizer.learningRate = 0.01;
    const [name, param] = Object.entries(captured.params)[0]!;
    captured.optimizer.step({ [name]: param.mul(0) });
    expect(captured.optimizer.stepCount).toBe(6);
    const after = await bitsOf(captured.params);
    expect(() => step(inputsAt(5))).toThrow(/has taken \d steps and .* Capture the step again/);
    expect(await bitsOf(captured.params)).toEqual(after);
    expect(Object.keys(before)).toEqual(Object.keys(after));
  });

  it("leaks nothing over a hundred replays", async () => {
    const captured = run({ optimizer: adamw({ maxGradNorm: 1 }), microBatches: 2, loss: lossWithDropout });
    await sync();
    const before = memory();
    const step = captured.capture();
    const seen = new Set<string>();
    for (let i = 0; i < 104; i++) {
      captured.counter.step = i;
      step(inputsAt(i, 2)).dispose();
      if (i < 4) continue;
      await sync();
      seen.add(`${memory().tensors} ${memory().liveBytes}`);
    }
    expect(seen.size).toBe(1);
    step.dispose();
    captured.optimizer.dispose();
    await sync();
    expect(memory().tensors).toBeLessThan(before.tensors);
    expect(memory().liveBytes).toBeLessThan(before.liveBytes);
  });
});
