/** Optimizers in captured steps, beside the same steps as they are: equal bits in parameters, state and norms, or a refusal that harms nothing. */
import { CaptureError, NonFiniteError, OptionError } from "@llmeff/native";
import { captureStep, type DType, mul, scope, square, sync, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { optimizers, routed } from "../test/all-optimizers.js";
import { AdamW, cosine, type Optimizer, ParameterEma, SAM, ScheduleFreeAdamW, SGD, Sonew, warmup } from "./index.js";

type Tensors = Record<string, Tensor>;
type Values = Record<string, Float32Array>;

const shapes: Record<string, number[]> = { weight: [4, 6], bias: [6], table: [3, 5] };
const sizeOf = (name: string) => shapes[name]!.reduce((a, b) => a * b, 1);
const valuesAt = (step: number): Values =>
  Object.fromEntries(
    Object.keys(shapes).map((name, k) => [
      name,
      Float32Array.from({ length: sizeOf(name) }, (_, i) => Math.sin(i * (k + 1) + 7 * step + 1)),
    ]),
  );
const toTensors = (values: Values, dtype: DType = "float32"): Tensors =>
  Object.fromEntries(
    Object.entries(values).map(([name, x]) => [name, tensor(x, { shape: shapes[name]! }).astype(dtype)]),
  );
const formsOf = (names: readonly string[], dtype: DType = "float32") =>
  Object.fromEntries(names.map((name) => [name, { shape: shapes[name]!, dtype }]));

const bitsOf = (tensors: Readonly<Tensors>) =>
  Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name, x.astype("float64").dataSync()]));

async function stateOf(params: Tensors, optimizer: Optimizer) {
  const { tensors, meta } = optimizer.stateDict();
  return { params: bitsOf(params), state: bitsOf(tensors), meta, norm: await optimizer.gradNorm() };
}

/** Two of one optimizer, the second of which is stepped in a captured step. */
function twins(make: (params: Tensors) => Optimizer, dtype: DType = "float32") {
  const [plain, captured] = pair(() => {
    const params = toTensors(valuesAt(-1), dtype);
    return { params, optimizer: make(params) };
  });
  const step = captureStep((grads: Tensors) => captured.optimizer.step(grads), {
    inputs: formsOf(Object.keys(shapes), dtype),
  });
  const both = (values: Values) => {
    scope(() => plain.optimizer.step(toTensors(values, dtype)));
    scope(() => step(toTensors(values, dtype)));
  };
  return { plain, captured, step, both };
}
function pair<T>(make: () => T): [plain: T, captured: T] {
  return [make(), make()];
}

const options = {
  learningRate: cosine(0.1, 12, { warmupSteps: 4 }),
  maxGradNorm: 0.5,
  groups: [{ params: ["table"], learningRate: warmup(0.05, 5), weightDecay: 0.2 }],
};

/** Those that compute with numbers of the host which no replay sees change. */
const withTransforms = [
  "Lamb",
  "Adafactor",
  "SM3",
  "optimizerOf",
  "Muon",
  "Shampoo",
  "Sketchy",
  "Soap",
  "PsgdKron",
  "RfdSon",
];
const refusing = ["Schedule-Free AdamW", ...withTransforms];
const refuses = (name: string) => refusing.some((start) => name.startsWith(start));
const all = [...optimizers, routed];

describe.each(all.filter(({ name }) => !refuses(name)))("$name", ({ name, make }) => {
  const given = name === routed.name ? { learningRate: options.learningRate, maxGradNorm: 0.5 } : options;

  it.each(["float32", "bfloat16"] as const)("has the bits of uncaptured steps on %s", async (dtype) => {
    const { plain, captured, step, both } = twins((params) => make(params as never, given) as never, dtype);
    for (let i = 0; i < 9; i++) {
      both(valuesAt(i));
      expect(step.mode).toBe(i < 2 ? "eager" : "captured");
      expect(captured.optimizer.stepCount).toBe(i + 1);
    }
    const [got, want] = [
      await stateOf(captured.params, captured.optimizer),
      await stateOf(plain.params, plain.optimizer),
    ];
    expect(got).toEqual(want);
    expect(got.params).not.toEqual(bitsOf(toTensors(valuesAt(-1), dtype)));
    for (const { optimizer } of [plain, captured]) optimizer.learningRate = 0.3;
    both(valuesAt(20));
    expect(bitsOf(captured.params)).toEqual(bitsOf(plain.params));
  });
});

describe.each(all.filter(({ name }) => refuses(name)))("$name", ({ make }) => {
  it("refuses to be captured, and is stepped on as before", async () => {
    const { plain, captured, step, both } = twins((params) => make(params as never, { learningRate: 0.01 }) as never);
    for (let i = 0; i < 2; i++) both(valuesAt(i));
    expect(() => step(valuesAt(2))).toThrow(CaptureError);
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(await stateOf(plain.params, plain.optimizer));
    for (let i = 2; i < 5; i++) both(valuesAt(i));
    expect(step.mode).toBe("eager");
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(await stateOf(plain.params, plain.optimizer));
  });
});

const spoilt = (step: number): Values => {
  const values = valuesAt(step);
  values.bias![2] = Number.NaN;
  return values;
};

describe("A captured step", () => {
  it("rounds state in bfloat16 with the random numbers of each replay", async () => {
    const { plain, captured, both } = twins(
      (params) => new Sonew(params, { ...options, stateDtype: "bfloat16", band: 2 }),
    );
    for (let i = 0; i < 8; i++) both(valuesAt(i));
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(await stateOf(plain.params, plain.optimizer));
  });

  it("counts steps of parameters that don't always have gradients", async () => {
    const [plain, captured] = pair(() => {
      const params = toTensors(valuesAt(-1));
      const optimizer = new AdamW(params, { learningRate: cosine(0.1, 30), maxGradNorm: 1 });
      const run = ({ weight, bias, table }: Tensors) => {
        optimizer.step({ weight: weight! });
        optimizer.step({ weight: mul(weight!, 2), bias: bias! });
        optimizer.step({ table: table!, bias: mul(bias!, 3) });
      };
      return { params, optimizer, run };
    });
    const step = captureStep(captured.run, { inputs: formsOf(Object.keys(shapes)), warmup: 1 });
    for (let i = 0; i < 5; i++) {
      step(valuesAt(i));
      scope(() => plain.run(toTensors(valuesAt(i))));
    }
    expect(captured.optimizer.stateDict().meta).toMatchObject({
      stepCount: 15,
      steps: { weight: 10, bias: 10, table: 5 },
    });
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(await stateOf(plain.params, plain.optimizer));
  });

  it.each([
    ["an optimizer", (params: Tensors) => new AdamW(params, { nonFinite: "throw" })],
    ["routed ones", (params: Tensors) => routed.make(params as never, { nonFinite: "throw" }) as never as Optimizer],
  ])("tells of gradients that are not finite: %s", async (_, make) => {
    const { plain, captured, step, both } = twins(make);
    for (let i = 0; i < 4; i++) both(valuesAt(i));
    expect(step.mode).toBe("captured");
    both(spoilt(4));
    for (const { optimizer } of [plain, captured])
      await expect(optimizer.settled()).rejects.toThrow("was NaN at step 4");
    both(valuesAt(5));
    both(spoilt(6));
    await sync();
    await new Promise((resolve) => setTimeout(resolve, 10));
    const before = await stateOf(captured.params, captured.optimizer);
    expect(() => scope(() => plain.optimizer.step(toTensors(valuesAt(7))))).toThrow(NonFiniteError);
    expect(() => step(valuesAt(7))).toThrow(NonFiniteError);
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(before);
    both(valuesAt(8));
    for (const { optimizer } of [plain, captured]) await optimizer.settled();
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(await stateOf(plain.params, plain.optimizer));
  });

  it("calls hooks: those before it when it is captured, those after it at every replay", async () => {
    const { plain, captured, both, step } = twins((params) => new SGD(params, { learningRate: 0.1, momentum: 0.9 }));
    const averages = [plain, captured].map(({ params, optimizer }) => {
      optimizer.hooks!.beforeStep((grads) =>
        Object.fromEntries(Object.entries(grads).map(([name, grad]) => [name, mul(grad, 0.5)])),
      );
      const average = new ParameterEma(params, { decay: 0.9, debias: true });
      optimizer.hooks!.afterStep(() => average.update());
      return average;
    });
    for (let i = 0; i < 6; i++) both(valuesAt(i));
    for (const average of averages) expect(average.count).toBe(6);
    const remove = captured.optimizer.hooks!.afterStep(() => {
      throw new RangeError("enough");
    });
    const later: number[] = [];
    captured.optimizer.hooks!.afterStep(() => later.push(captured.optimizer.stepCount));
    expect(() => step(valuesAt(6))).toThrow("enough");
    remove();
    scope(() => plain.optimizer.step(toTensors(valuesAt(6))));
    both(valuesAt(7));
    expect(later).toEqual([8]);
    expect(bitsOf(averages[1]!.stateDict().tensors)).toEqual(bitsOf(averages[0]!.stateDict().tensors));
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(await stateOf(plain.params, plain.optimizer));
  });

  it("updates an average of parameters in every replay", () => {
    const [plain, captured] = pair(() => {
      const params = toTensors(valuesAt(-1));
      const average = new ParameterEma(params, { debias: true });
      const optimizer = new AdamW(params);
      const run = (grads: Tensors) => {
        optimizer.step(grads);
        average.update();
      };
      return { average, run };
    });
    const step = captureStep(captured.run, { inputs: formsOf(Object.keys(shapes)) });
    for (let i = 0; i < 6; i++) {
      step(valuesAt(i));
      scope(() => plain.run(toTensors(valuesAt(i))));
    }
    expect(captured.average.count).toBe(6);
    expect(bitsOf(captured.average.stateDict().tensors)).toEqual(bitsOf(plain.average.stateDict().tensors));
  });

  it("takes steps of SAM with a function that takes gradients", async () => {
    const [plain, captured] = pair(() => {
      const params = toTensors(valuesAt(-1));
      const sam = new SAM(new SGD(params, { learningRate: cosine(0.05, 20), momentum: 0.9 }));
      const loss = (x: Tensor) => (p: Tensors) => square(mul(p.weight!, x)).sum().add(square(p.bias!).mean());
      const run = ({ weight }: Tensors) => sam.step(() => valueAndGrad(loss(weight!), params)).value;
      return { params, optimizer: sam.base, run };
    });
    const step = captureStep(captured.run, { inputs: formsOf(["weight"]) });
    for (let i = 0; i < 6; i++) {
      const { weight } = valuesAt(i);
      const want = scope(() => plain.run({ weight: toTensors({ weight: weight! }).weight! }).itemSync());
      expect(step({ weight: weight! }).itemSync()).toBe(want);
    }
    expect(step.mode).toBe("captured");
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(await stateOf(plain.params, plain.optimizer));
  });

  it("is refused when hyper-parameters are no longer those of the capture, and goes on when they are", async () => {
    const { plain, captured, step, both } = twins((params) => new Sonew(params, options));
    for (let i = 0; i < 4; i++) both(valuesAt(i));
    const group = (captured.optimizer as Sonew<Tensor>).paramGroups[0]! as { weightDecay: number };
    const before = await stateOf(captured.params, captured.optimizer);
    group.weightDecay = 0.4;
    expect(() => step(valuesAt(4))).toThrow(
      new OptionError(
        "[Sonew.step] weightDecay of paramGroups[0] was 0.2 when the step was captured and is 0.4. Capture the step again.",
      ),
    );
    group.weightDecay = 0.2;
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(before);
    both(valuesAt(5));
    expect(await stateOf(captured.params, captured.optimizer)).toEqual(await stateOf(plain.params, plain.optimizer));
  });

  it("can't change what is kept on the host", () => {
    const params = toTensors(valuesAt(-1));
    const [adamw, free] = [new AdamW(params), new ScheduleFreeAdamW(params)];
    const average = new ParameterEma(params);
    const acts: Record<string, () => void> = {
      "AdamW.loadStateDict": () => adamw.loadStateDict(adamw.stateDict()),
      "AdamW.addParamGroup": () => adamw.addParamGroup({ params: { other: params.bias!.clone() } }),
      "ScheduleFreeAdamW.eval": () => free.eval(),
      "ParameterEma.swap": () => average.swap(),
      "SAM.ascend": () => new SAM(adamw).ascend({}),
    };
    for (const [name, act] of Object.entries(acts)) {
      let capturing = false;
      const step = captureStep(() => (capturing ? act() : undefined), { inputs: {}, warmup: 1 });
      step({});
      capturing = true;
      expect(() => step({}), name).toThrow(`[${name}] can't be part of a captured step`);
    }
    const inputs = formsOf(Object.keys(shapes));
    const known = captureStep((grads: Tensors) => adamw.step(grads, { gradNorm: 1 }), { inputs, warmup: 1 });
    known(toTensors(valuesAt(0)));
    expect(() => known(toTensors(valuesAt(1)))).toThrow(/every replay of a captured step would take its gradients/);
    expect(free.training).toBe(true);
    expect(Object.keys(adamw.params)).toEqual(Object.keys(shapes));
  });
});
