/** Every mistake gets a typed error that says where, what was expected and what came; and the engine goes on working. */
import { describe, expect, it } from "vitest";
import * as t from "../src/index.js";
import { scope, type Tensor } from "../src/index.js";
import { sample } from "./numbers.js";

/** Operations to be called by name. */
const byName = { ...t };

type ErrorClass = abstract new (...args: never[]) => t.LlmeffError;

const f = (...shape: number[]) => t.zeros(shape);
const ids = (...values: number[]) => t.tensor(Int32Array.from(values));
const wrong = (value: unknown) => value as never;
const qkv: [Tensor, Tensor, Tensor] = [f(1, 4, 2, 4), f(1, 4, 1, 4), f(1, 4, 1, 4)];
const pairs = [f(1, 4, 2, 4), f(1, 4, 1, 4), f(1, 4, 1, 4), f(1, 4, 1, 4), f(1, 4, 1, 4)] as const;
const disposed = () => {
  const x = f(2, 2);
  x.dispose();
  return x;
};

const mistakes: [what: string, call: () => unknown, type: ErrorClass, code: string, message: string][] = [
  // Creation.
  ["a ragged array", () => t.tensor([[1, 2], [3]]), t.ShapeError, "ERR_SHAPE", "rectangular"],
  ["an array that holds a string", () => t.tensor(wrong(["a"])), t.ShapeError, "ERR_SHAPE", "rectangular"],
  [
    "a shape of another size",
    () => t.tensor([1, 2, 3], { shape: [2] }),
    t.ShapeError,
    "ERR_SHAPE",
    "has 2 elements; received 3",
  ],
  ["nine axes", () => t.zeros([1, 1, 1, 1, 1, 1, 1, 1, 1]), t.ShapeError, "ERR_SHAPE", "at most 8"],
  ["nine axes in an array", () => t.tensor([[[[[[[[[1]]]]]]]]]), t.ShapeError, "ERR_SHAPE", "at most 8"],
  [
    "an array that holds itself",
    () => {
      const a: unknown[] = [];
      a.push(a);
      t.tensor(wrong(a));
    },
    t.ShapeError,
    "ERR_SHAPE",
    "at most 8",
  ],
  ["a negative dimension", () => t.zeros([2, -1]), t.ShapeError, "ERR_SHAPE", "non-negative integers"],
  ["a fractional dimension", () => t.zeros([1.5]), t.ShapeError, "ERR_SHAPE", "non-negative integers"],
  ["no shape", () => t.zeros(wrong(undefined)), t.ShapeError, "ERR_SHAPE", "a shape is an array"],
  ["an unknown dtype", () => t.zeros([1], { dtype: wrong("float8") }), t.DTypeError, "ERR_DTYPE", 'received "float8"'],
  ["dtype __proto__", () => t.zeros([1], { dtype: wrong("__proto__") }), t.DTypeError, "ERR_DTYPE", "__proto__"],
  ["Uint16Array without a dtype", () => t.tensor(new Uint16Array(2)), t.DTypeError, "ERR_DTYPE", "name the dtype"],
  [
    "a typed array of another class",
    () => t.tensor(wrong(new Int8Array(2))),
    t.DTypeError,
    "ERR_DTYPE",
    "received Int8Array",
  ],
  ["a value that is no number", () => t.full([2], wrong("1")), t.OptionError, "ERR_OPTION", "must be a number"],
  [
    "a fractional seed",
    () => t.randomUniform({ seed: 0.5 }, [2]),
    t.OptionError,
    "ERR_OPTION",
    "seed must be an integer",
  ],
  [
    "random integers",
    () => t.randomNormal({ seed: 1 }, [2], { dtype: "int32" }),
    t.DTypeError,
    "ERR_DTYPE",
    "floating-point",
  ],
  [
    "more memory than there is",
    () => t.zeros([2 ** 20, 2 ** 24]),
    t.OutOfMemoryError,
    "ERR_OUT_OF_MEMORY",
    "bytes were asked for",
  ],
  ["more bytes than numbers have", () => t.zeros([2 ** 40, 2 ** 40]), t.OutOfMemoryError, "ERR_OUT_OF_MEMORY", "2^63"],
  // Things that are no tensors.
  ["add(undefined, x)", () => t.add(wrong(undefined), f(1)), t.DTypeError, "ERR_DTYPE", "a must be a Tensor"],
  ["silu(null)", () => t.silu(wrong(null)), t.DTypeError, "ERR_DTYPE", "received null"],
  ["sum([1])", () => t.sum(wrong([1])), t.DTypeError, "ERR_DTYPE", "x must be a Tensor"],
  ["reshape(3)", () => t.reshape(wrong(3), [1]), t.DTypeError, "ERR_DTYPE", "x must be a Tensor"],
  ["matmul(x, {})", () => t.matmul(f(1, 1), wrong({})), t.DTypeError, "ERR_DTYPE", "b must be a Tensor"],
  ["concat([x, 1])", () => t.concat([f(1), wrong(1)]), t.DTypeError, "ERR_DTYPE", "tensors[1] must be a Tensor"],
  ["where(x, …) of floats", () => t.where(f(1), f(1), f(1)), t.DTypeError, "ERR_DTYPE", "bool condition"],
  [
    "copyInto(x, undefined)",
    () => t.copyInto(f(1), wrong(undefined)),
    t.DTypeError,
    "ERR_DTYPE",
    "source must be a Tensor",
  ],
  // Shapes and dtypes of operations.
  ["shapes that don't broadcast", () => t.add(f(2, 3), f(2)), t.ShapeError, "ERR_SHAPE", "3 ≠ 2 on axis -1"],
  [
    "float32 with float64",
    () => t.mul(f(1), t.zeros([1], { dtype: "float64" })),
    t.DTypeError,
    "ERR_DTYPE",
    "float32 and float64",
  ],
  ["arithmetic on uint8", () => t.add(t.zeros([1], { dtype: "uint8" }), 1), t.DTypeError, "ERR_DTYPE", "Use astype()"],
  ["logic on numbers", () => t.logicalAnd(f(2), f(2)), t.DTypeError, "ERR_DTYPE", "expected two tensors of bool"],
  ["logicalNot of numbers", () => t.logicalNot(f(2)), t.DTypeError, "ERR_DTYPE", "Compare first"],
  ["any of numbers", () => t.any(f(2)), t.DTypeError, "ERR_DTYPE", "Compare first"],
  ["atan2 of integers", () => t.atan2(ids(1), ids(1)), t.DTypeError, "ERR_DTYPE", "one floating-point dtype; received"],
  ["clip with bounds in the wrong order", () => t.clip(f(2), 1, 0), t.OptionError, "ERR_OPTION", "min ≤ max"],
  [
    "bfloat16 with float32",
    () => t.add(t.zeros([1], { dtype: "bfloat16" }), f(1)),
    t.DTypeError,
    "ERR_DTYPE",
    "bfloat16 and float32. Use astype()",
  ],
  ["arithmetic on bool", () => t.add(t.zeros([1], { dtype: "bool" }), 1), t.DTypeError, "ERR_DTYPE", "Use astype()"],
  [
    "gelu of an unknown form",
    () => t.gelu(f(2), { approximate: "erf" as "none" }),
    t.OptionError,
    "ERR_OPTION",
    '"erf"',
  ],
  ["softmax of an axis that isn't there", () => t.softmax(f(2, 3), { axis: 2 }), t.ShapeError, "ERR_SHAPE", "-2..1"],
  ["dropout of more than everything", () => t.dropout(f(2), 1.5, { seed: 1 }), t.OptionError, "ERR_OPTION", "[0, 1]"],
  ["dropout without a key", () => t.dropout(f(2), 0.5, null as never), t.OptionError, "ERR_OPTION", "{ seed, stream }"],
  [
    "a correction that isn't a number",
    () => t.std(f(2), { correction: NaN }),
    t.OptionError,
    "ERR_OPTION",
    "correction",
  ],
  ["a loss of two shapes", () => t.mseLoss(f(4, 1), f(4)), t.ShapeError, "ERR_SHAPE", "[4, 1] and target is [4]"],
  [
    "an unknown reduction",
    () => t.klDivergence(f(2), f(2), { reduction: "batchmean" as "mean" }),
    t.OptionError,
    "ERR_OPTION",
    '"batchmean"',
  ],
  ["a threshold of zero", () => t.huberLoss(f(2), f(2), { delta: 0 }), t.OptionError, "ERR_OPTION", "delta"],
  ["exp of integers", () => t.exp(ids(1)), t.DTypeError, "ERR_DTYPE", "received int32"],
  ["sum of integers", () => t.sum(ids(1)), t.DTypeError, "ERR_DTYPE", "received int32"],
  ["the maximum of nothing", () => t.max(f(0)), t.ShapeError, "ERR_SHAPE", "nothing to reduce"],
  ["an axis past the last", () => t.sum(f(2, 2), { axis: 2 }), t.ShapeError, "ERR_SHAPE", "-2..1"],
  ["a fractional axis", () => t.sum(f(2, 2), { axis: 0.5 }), t.ShapeError, "ERR_SHAPE", "axis must be an integer"],
  ["a reshape to no shape", () => t.reshape(f(2), wrong(undefined)), t.ShapeError, "ERR_SHAPE", "received undefined"],
  ["a permutation of no axes", () => t.permute(f(2), wrong(null)), t.ShapeError, "ERR_SHAPE", "received null"],
  ["no random key", () => t.randomNormal(wrong(undefined), [1]), t.OptionError, "ERR_OPTION", "key must be"],
  ["a random key that is a number", () => t.randomUniform(wrong(3), [1]), t.OptionError, "ERR_OPTION", "received 3"],
  ["a reshape of another size", () => t.reshape(f(2, 3), [4]), t.ShapeError, "ERR_SHAPE", "has 6 elements"],
  ["two unknown dimensions", () => t.reshape(f(2, 3), [-1, -1]), t.ShapeError, "ERR_SHAPE", "don't fill"],
  ["an unknown dimension that isn't whole", () => t.reshape(f(2, 3), [4, -1]), t.ShapeError, "ERR_SHAPE", "don't fill"],
  [
    "a permutation that repeats an axis",
    () => t.permute(f(2, 3), [0, 0]),
    t.ShapeError,
    "ERR_SHAPE",
    "each of the 2 axes once",
  ],
  ["a slice past the end", () => t.slice(f(3), 0, 1, 5), t.ShapeError, "ERR_SHAPE", "no range within"],
  ["a slice backwards", () => t.slice(f(3), 0, 2, 1), t.ShapeError, "ERR_SHAPE", "no range within"],
  ["a fractional slice", () => t.slice(f(3), 0, 0.5), t.ShapeError, "ERR_SHAPE", "no range within"],
  ["an expansion of a size that isn't 1", () => t.expand(f(2), [3]), t.ShapeError, "ERR_SHAPE", "doesn't broadcast"],
  ["a concatenation of nothing", () => t.concat([]), t.OptionError, "ERR_OPTION", "at least one"],
  [
    "a concatenation of other shapes",
    () => t.concat([f(2, 2), f(2, 3)]),
    t.ShapeError,
    "ERR_SHAPE",
    "agree except on axis 0",
  ],
  ["inner dimensions", () => t.matmul(f(2, 3), f(2, 3)), t.ShapeError, "ERR_SHAPE", "Did you mean matmul(a, b.T)?"],
  ["a product with a scalar", () => t.matmul(f(), f(1)), t.ShapeError, "ERR_SHAPE", "Use mul()"],
  ["linear of another width", () => t.linear(f(2, 3), f(4, 5)), t.ShapeError, "ERR_SHAPE", "weight [O, I]"],
  ["linear with another bias", () => t.linear(f(2, 3), f(4, 3), f(3)), t.ShapeError, "ERR_SHAPE", "bias must be [4]"],
  ["softmax of a scalar", () => t.softmax(f()), t.ShapeError, "ERR_SHAPE", "at least one axis"],
  ["an embedding of floats", () => t.embedding(f(3, 2), f(2)), t.DTypeError, "ERR_DTYPE", "ids must be int32"],
  ["an embedding of an empty table", () => t.embedding(f(0, 2), ids(0)), t.ShapeError, "ERR_SHAPE", "V > 0"],
  ["rmsNorm of another width", () => t.rmsNorm(f(2, 3), f(4)), t.ShapeError, "ERR_SHAPE", "weight [C]"],
  ["a negative eps", () => t.rmsNorm(f(2, 3), f(3), { eps: -1 }), t.OptionError, "ERR_OPTION", "eps must be ≥ 0"],
  [
    "tables of another length",
    () => t.rope(f(1, 3, 1, 4), f(2, 2), f(2, 2)),
    t.ShapeError,
    "ERR_SHAPE",
    "tables must be",
  ],
  ["tables of two widths", () => t.rope(f(1, 2, 1, 4), f(2, 2), f(2, 1)), t.ShapeError, "ERR_SHAPE", "tables differ"],
  ["odd rotary width", () => t.ropeTables(4, 3), t.OptionError, "ERR_OPTION", "even"],
  ["gates of two shapes", () => t.swiglu(f(2, 3), f(3, 2)), t.ShapeError, "ERR_SHAPE", "one shape"],
  ["targets of another shape", () => t.crossEntropy(f(2, 3), ids(1)), t.ShapeError, "ERR_SHAPE", "targets […]"],
  ["logits without classes", () => t.crossEntropy(f(2, 0), ids(1, 1)), t.ShapeError, "ERR_SHAPE", "logits […, V]"],
  [
    "label smoothing of 1",
    () => t.crossEntropy(f(1, 3), ids(1), { labelSmoothing: 1 }),
    t.OptionError,
    "ERR_OPTION",
    "[0, 1)",
  ],
  ["a negative z-loss", () => t.crossEntropy(f(1, 3), ids(1), { zLoss: -1 }), t.OptionError, "ERR_OPTION", "zLoss"],
  [
    "a softcap of NaN",
    () => t.linearCrossEntropy(f(1, 3), f(4, 3), ids(1), { softcap: Number.NaN }),
    t.OptionError,
    "ERR_OPTION",
    "softcap",
  ],
  [
    "hidden states of another width",
    () => t.linearCrossEntropyParts(f(1, 3), f(4, 2), ids(1)),
    t.ShapeError,
    "ERR_SHAPE",
    "[linearCrossEntropyParts]",
  ],
  ["the norm of nothing", () => t.globalNorm([]), t.OptionError, "ERR_OPTION", "at least one"],
  ["copying another shape", () => t.copyInto(f(2), f(3)), t.ShapeError, "ERR_SHAPE", "shapes differ"],
  ["item of two elements", () => f(2).itemSync(), t.ShapeError, "ERR_SHAPE", "expected one element"],
  // Attention.
  ...[0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY].flatMap((window): (typeof mistakes)[number][] => [
    [
      `attention with window ${window}`,
      () => t.attention(...qkv, { window }),
      t.OptionError,
      "ERR_OPTION",
      "window must be a positive integer",
    ],
    [
      `simplicialAttention with w1 ${window}`,
      () => t.simplicialAttention(...pairs, { w1: window }),
      t.OptionError,
      "ERR_OPTION",
      "w1 must be a positive integer",
    ],
    [
      `simplicialAttention with w2 ${window}`,
      () => t.simplicialAttention(...pairs, { w2: window }),
      t.OptionError,
      "ERR_OPTION",
      "w2 must be a positive integer",
    ],
  ]),
  [
    "heads that don't divide",
    () => t.attention(f(1, 4, 3, 4), f(1, 4, 2, 4), f(1, 4, 2, 4)),
    t.ShapeError,
    "ERR_SHAPE",
    "multiple",
  ],
  ["three axes", () => t.attention(f(4, 2, 4), qkv[1], qkv[2]), t.ShapeError, "ERR_SHAPE", "q must be [B, T, H, D]"],
  [
    "head size 0",
    () => t.attention(f(1, 1, 1, 0), f(1, 1, 1, 0), f(1, 1, 1, 2)),
    t.ShapeError,
    "ERR_SHAPE",
    "head size",
  ],
  ["more queries than keys", () => t.attention(f(1, 5, 1, 4), qkv[1], qkv[2]), t.OptionError, "ERR_OPTION", "qOffset"],
  [
    "an infinite scale",
    () => t.attention(...qkv, { scale: Number.POSITIVE_INFINITY }),
    t.OptionError,
    "ERR_OPTION",
    "scale must be a finite number",
  ],
  [
    "keys and values of two lengths",
    () => t.attention(qkv[0], f(1, 4, 1, 4), f(1, 3, 1, 4)),
    t.ShapeError,
    "ERR_SHAPE",
    "lengths of k and v",
  ],
  [
    "windows without causality",
    () => t.simplicialAttention(...pairs, { causal: false, w1: 2 }),
    t.OptionError,
    "ERR_OPTION",
    "unlimited windows",
  ],
  [
    "a window that reaches outside",
    () => t.simplicialAttention(...pairs, { w1: 3, k1Offset: 2, qOffset: 2 }),
    t.ShapeError,
    "ERR_SHAPE",
    "Check qOffset",
  ],
  [
    "an unknown form",
    () => t.simplicialAttention(...pairs, { form: wrong("cubic") }),
    t.OptionError,
    "ERR_OPTION",
    "trilinear",
  ],
  // Disposed tensors.
  ["arithmetic on a disposed tensor", () => disposed().add(1), t.DisposedError, "ERR_DISPOSED", "was disposed"],
  [
    "a view of a disposed tensor",
    () => disposed().reshape([4]),
    t.DisposedError,
    "ERR_DISPOSED",
    "float32 tensor of shape [2, 2]",
  ],
  ["reading a disposed tensor", () => disposed().dataSync(), t.DisposedError, "ERR_DISPOSED", "keep()"],
  [
    "a disposed parameter",
    () => t.valueAndGrad((x: Tensor) => x.sum(), disposed()),
    t.DisposedError,
    "ERR_DISPOSED",
    "was disposed",
  ],
  // Scopes and gradients.
  [
    "an asynchronous scope",
    () => scope(async () => f(1).data()),
    t.OptionError,
    "ERR_OPTION",
    "[scope] expected a function that returns a value",
  ],
  [
    "an asynchronous loss",
    () =>
      t.valueAndGrad(
        wrong(async (x: Tensor) => x.sum()),
        f(1),
      ),
    t.OptionError,
    "ERR_OPTION",
    "[valueAndGrad]",
  ],
  [
    "a loss of two elements",
    () => t.valueAndGrad((x: Tensor) => x.mul(2), f(2)),
    t.ShapeError,
    "ERR_SHAPE",
    "Take its mean() or sum()",
  ],
  [
    "a loss that is no tensor",
    () =>
      t.valueAndGrad(
        wrong(() => 1),
        f(2),
      ),
    t.OptionError,
    "ERR_OPTION",
    "received undefined",
  ],
  [
    "a loss that is missing",
    () =>
      t.valueAndGrad(
        wrong(() => undefined),
        f(2),
      ),
    t.OptionError,
    "ERR_OPTION",
    "floating-point tensor",
  ],
  ["an integer loss", () => t.valueAndGrad(() => ids(1), f(2)), t.OptionError, "ERR_OPTION", "int32"],
  ["integer parameters", () => t.valueAndGrad((x: Tensor) => x, ids(1)), t.DTypeError, "ERR_DTYPE", "floating-point"],
  [
    "one tensor in two places",
    () => {
      const w = f(1);
      t.grad((p: Tensor[]) => p[0]!.sum(), [w, w]);
    },
    t.OptionError,
    "ERR_OPTION",
    "twice",
  ],
  [
    "a gradient of a gradient by the same parameter",
    () => t.grad((x: Tensor) => t.grad((y: Tensor) => y.square().sum(), x).sum(), f(2)),
    t.OptionError,
    "ERR_OPTION",
    "Gradients of gradients",
  ],
  [
    "an inner gradient through an outer tensor",
    () => t.grad((x: Tensor) => t.grad((y: Tensor) => y.mul(x).sum(), f(2)).sum(), f(2)),
    t.LlmeffError,
    "ERR_OPTION",
    "another valueAndGrad",
  ],
  [
    "a gradient of another shape from defineOp",
    () => {
      const op = t.defineOp<undefined>({ name: "odd", forward: (_c, [x]) => x!.clone(), backward: () => [f(3)] });
      t.grad((x: Tensor) => op([x], undefined).sum(), f(2));
    },
    t.ShapeError,
    "ERR_SHAPE",
    "[odd] backward returned",
  ],
];

describe("mistakes", () => {
  it.each(mistakes)("%s", (_what, call, type, code, message) => {
    const before = t.memory().tensors;
    let error: unknown;
    try {
      scope(call);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(type);
    expect(error).toMatchObject({ code, message: expect.stringContaining(message) });
    expect((error as Error).message).toMatch(/^\[[\w@/.]+\] /);
    expect(t.memory().tensors, "tensors left behind").toBe(before);
    expect(t.ones([2]).add(1).dataSync()).toEqual(Float32Array.of(2, 2));
  });

  it("don't leave the promise of an asynchronous function to end the process", async () => {
    const unhandled: unknown[] = [];
    const listen = (reason: unknown) => unhandled.push(reason);
    process.on("unhandledRejection", listen);
    const late = async () => {
      const x = f(2);
      await Promise.resolve();
      return x.data(); // disposed by then
    };
    expect(() => scope(late)).toThrow(t.OptionError);
    expect(() => t.valueAndGrad(wrong(late), f(1))).toThrow(t.OptionError);
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off("unhandledRejection", listen);
    expect(unhandled).toEqual([]);
  });
});

describe("failures that show when the work runs", () => {
  const table = t.ones([4, 2]);

  it.each([-1, 4, 2 ** 31 - 1, -(2 ** 31)])(
    "refuse token id %i at the read, with the caller in the stack",
    async (id) => {
      const bad = t.embedding(table, ids(0, id));
      await expect(bad.data()).rejects.toMatchObject({
        code: "ERR_INDEX",
        message: `[embedding] token id ${id} at position 1 is outside the vocabulary of 4`,
        stack: expect.stringMatching(/queued[\s\S]*bad-input\.test\.ts/),
      });
      expect(() => bad.dataSync()).toThrow(t.IndexOutOfRangeError);
    },
  );

  it.each(["crossEntropy", "linearCrossEntropy"] as const)(
    "refuse a target outside the vocabulary in %s",
    async (name) => {
      const { value, grads } = t.valueAndGrad(
        (w: Tensor) =>
          name === "crossEntropy"
            ? t.crossEntropy(w, ids(1, 2, 3, 2))
            : t.linearCrossEntropy(t.ones([4, 2]), w, ids(4, 2, 3, 4)),
        t.ones([4, 2]),
      );
      for (const read of [value, grads]) {
        await expect(read.item().catch(() => read.data())).rejects.toMatchObject({
          code: "ERR_INDEX",
          stack: expect.stringMatching(/queued[\s\S]*bad-input\.test\.ts/),
        });
      }
    },
  );

  it("reach everything that was computed from them, and nothing else", async () => {
    const bad = t.embedding(table, ids(9, 0));
    const good = t.ones([2, 2]);
    const derived = [
      bad.add(1),
      bad.sum(),
      t.concat([bad, good]),
      t.concat([good, bad]),
      bad.slice(0, 1).T,
      t.where(t.equal(good, 1), bad, good),
    ];
    for (const x of derived) await expect(x.data()).rejects.toThrow(t.IndexOutOfRangeError);
    expect(await good.add(1).data()).toEqual(Float32Array.of(2, 2, 2, 2));
  });

  it("leave what would have been updated in place as it was", async () => {
    const { engine } = await import("@llmeff/native");
    const params = t.tensor([1, 2]);
    const state = [t.zeros([2]), t.zeros([2])];
    const badGrads = t.embedding(table, ids(77)).reshape([2]);
    engine().op.adamwStep(
      [params.handle],
      [badGrads.handle],
      [state[0]!.handle],
      [state[1]!.handle],
      [],
      null,
      0.1,
      0.9,
      0.99,
      1e-8,
      0,
      true,
      1,
    );
    expect(await params.data()).toEqual(Float32Array.of(1, 2));
    expect(await state[0]!.data()).toEqual(Float32Array.of(0, 0));
    await expect(badGrads.data()).rejects.toThrow("token id 77");
  });

  it("are told by sync, the oldest first and each once", async () => {
    t.embedding(table, ids(10));
    t.embedding(table, ids(11));
    await expect(t.sync()).rejects.toThrow("token id 10");
    await expect(t.sync()).resolves.toBeUndefined();
  });

  it("go away when the memory is written again", async () => {
    const target = t.zeros([1, 2]);
    t.copyInto(target, t.embedding(table, ids(5)));
    await expect(target.data()).rejects.toThrow(t.IndexOutOfRangeError);
    t.fill(target, 3);
    expect(await target.data()).toEqual(Float32Array.of(3, 3));
  });

  it("are not forgotten when a part of the memory is written", async () => {
    const target = t.zeros([2, 2]);
    t.copyInto(target.slice(0, 0, 1), t.embedding(table, ids(5)));
    t.copyInto(target.slice(0, 1, 2), t.ones([1, 2]));
    await expect(target.data()).rejects.toThrow(t.IndexOutOfRangeError);
  });
});

describe("empty arrays", () => {
  const none = (values: ArrayLike<number>) => expect([...Array.from(values)]).toEqual([]);

  it("go through every operation", () => {
    scope(() => {
      for (const name of ["neg", "exp", "silu", "gelu", "relu", "square", "isFinite"] as const)
        none(byName[name](f(0, 3)).dataSync());
      none(f(2, 0).add(f(1, 1)).dataSync());
      none(t.concat([f(0, 2), f(0, 2)]).dataSync());
      expect(t.concat([f(0, 2), t.ones([1, 2])]).shape).toEqual([1, 2]);
      none(f(3, 0).T.reshape([0, 7]).dataSync());
      none(t.softmax(f(3, 0)).dataSync());
      none(t.swiglu(f(0, 2), f(0, 2)).dataSync());
      none(t.rmsNorm(f(0, 2), f(2)).dataSync());
      none(t.embedding(f(3, 2), ids()).dataSync());
      none(t.linear(f(0, 3), f(4, 3)).dataSync());
      none(t.attention(f(0, 2, 2, 4), f(0, 2, 1, 4), f(0, 2, 1, 4)).dataSync());
      none(t.attention(f(1, 0, 2, 4), f(1, 2, 1, 4), f(1, 2, 1, 4)).dataSync());
      none(t.simplicialAttention(f(1, 0, 2, 4), f(1, 2, 1, 4), f(1, 2, 1, 4), f(1, 2, 1, 4), f(1, 2, 1, 4)).dataSync());
      none(t.randomNormal({ seed: 1 }, [0]).dataSync());
      expect([...t.matmul(f(2, 0), f(0, 3)).dataSync()]).toEqual(new Array(6).fill(0));
      expect([...t.linear(f(2, 0), f(3, 0)).dataSync()]).toEqual(new Array(6).fill(0));
      expect([...t.sum(f(2, 0), { axis: 1 }).dataSync()]).toEqual([0, 0]);
      expect(t.crossEntropy(f(0, 3), ids()).itemSync()).toBe(0);
      expect(t.linearCrossEntropy(f(0, 3), f(5, 3), ids()).itemSync()).toBe(0);
      expect(t.globalNorm([f(0), t.tensor([3, 4])]).itemSync()).toBe(5);
      expect(t.globalNorm([f(0)]).itemSync()).toBe(0);
      expect(f(0).toString()).toBe("Tensor(float32 [0]: )");
    });
  });

  it("give gradients of zeros, never what the memory held before", () => {
    scope(() => {
      const weights = () => [sample([4, 4], 1), sample([4], 2)];
      const losses: [string, (p: Tensor[]) => Tensor][] = [
        ["embedding", ([w]) => t.embedding(w!, ids()).sum()],
        ["linear", ([w]) => t.linear(t.zeros([0, 4], { dtype: "float64" }), w!).sum()],
        ["matmul", ([w]) => t.matmul(t.zeros([0, 4], { dtype: "float64" }), w!).sum()],
        ["rmsNorm", ([, g]) => t.rmsNorm(t.zeros([0, 4], { dtype: "float64" }), g!).sum()],
        [
          "attention",
          ([w]) =>
            t
              .attention(
                t.zeros([1, 0, 1, 4], { dtype: "float64" }),
                w!.reshape([1, 4, 1, 4]),
                w!.reshape([1, 4, 1, 4]),
              )
              .sum(),
        ],
        [
          "attention without keys",
          ([w]) => {
            const k = t.zeros([1, 0, 1, 4], { dtype: "float64" });
            return t.attention(w!.reshape([1, 4, 1, 4]), k, k, { qOffset: 0 }).sum();
          },
        ],
        ["linearCrossEntropy", ([w]) => t.linearCrossEntropy(t.zeros([0, 4], { dtype: "float64" }), w!, ids())],
        ["crossEntropy without targets", ([w]) => t.crossEntropy(w!, ids(-100, -100, -100, -100))],
        ["linearCrossEntropy without targets", ([w]) => t.linearCrossEntropy(w!, w!, ids(-100, -100, -100, -100))],
        ["slice", ([w]) => w!.slice(0, 2, 2).sum()],
        ["expand", ([w]) => w!.reshape([4, 4, 1]).expand([4, 4, 0]).sum()],
      ];
      // Blocks of the sizes that follow hold 7s when they are freed: memory that is not written shows.
      scope(() => [16, 4].flatMap((n) => Array.from({ length: 8 }, () => t.full([n], 7, { dtype: "float64" }))).length);
      for (const [name, loss] of losses) {
        for (const g of t.grad(loss, weights())) expect([...new Set(g.dataSync())], name).toEqual([0]);
      }
    });
  });
});

describe("numbers that are not finite", () => {
  const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

  it("go through, and are found", () => {
    scope(() => {
      const x = t.tensor([1, nan, inf, -inf]);
      expect([...t.isFinite(x).dataSync()]).toEqual([1, 0, 0, 0]);
      for (const name of ["sum", "mean", "max", "min"] as const) expect(byName[name](x).itemSync(), name).toBeNaN();
      for (const name of ["maximum", "minimum"] as const) {
        expect(byName[name](x, 2).dataSync()[1], name).toBeNaN();
        expect(byName[name](2, x).dataSync()[1], name).toBeNaN();
      }
      for (const name of ["exp", "tanh", "silu", "gelu", "sigmoid", "sqrt", "relu", "abs"] as const)
        expect(byName[name](x).dataSync()[1], name).toBeNaN();
      expect(t.globalNorm([x]).itemSync()).toBeNaN();
      for (const n of [1, 7, 16, 33, 100]) {
        for (const at of new Set([0, n >> 1, n - 1])) {
          const values = new Float32Array(n).fill(1);
          values[at] = nan;
          const row = t.tensor(values, { shape: [1, n] });
          expect(t.max(row).itemSync(), `max of ${n} with NaN at ${at}`).toBeNaN();
          expect(t.min(row).itemSync(), `min of ${n} with NaN at ${at}`).toBeNaN();
          expect(
            t
              .matmul(row, t.ones([n, 3]))
              .dataSync()
              .every(Number.isNaN),
            `matmul of ${n}`,
          ).toBe(true);
          expect(t.softmax(row).dataSync().every(Number.isNaN), `softmax of ${n}`).toBe(true);
          expect(
            t
              .rmsNorm(row, t.ones([n]))
              .dataSync()
              .every(Number.isNaN),
            `rmsNorm of ${n}`,
          ).toBe(true);
          expect(t.crossEntropy(row, ids(0)).itemSync(), `crossEntropy of ${n}`).toBeNaN();
        }
      }
    });
  });

  it("in one row of keys or values reach the rows that see it, and no other", () => {
    scope(() => {
      const q = sample([1, 9, 2, 4], 1, { dtype: "float32" });
      const k = sample([1, 9, 1, 4], 2, { dtype: "float32" });
      const poison = t.tensor(
        Float32Array.from({ length: 9 }, (_, i) => (i === 4 ? nan : 0)),
        { shape: [1, 9, 1, 1] },
      );
      const seen = (out: Tensor) =>
        Array.from({ length: 9 }, (_, i) =>
          out
            .slice(1, i, i + 1)
            .dataSync()
            .some(Number.isNaN),
        );
      const expected = [4, 5, 6].reduce((rows, i) => rows.with(i, true), new Array<boolean>(9).fill(false));
      expect(seen(t.attention(q, k.add(poison), k, { window: 3 })), "key").toEqual(expected);
      expect(seen(t.attention(q, k, k.add(poison), { window: 3 })), "value").toEqual(expected);
      const keys1 = seen(t.simplicialAttention(q, k.add(poison), k, k, k, { w1: 3, w2: 2 }));
      const values1 = seen(t.simplicialAttention(q, k, k, k.add(poison), k, { w1: 3, w2: 2 }));
      for (const rows of [keys1, values1]) expect(rows, "2-simplicial").toEqual(expected);
    });
  });
});
