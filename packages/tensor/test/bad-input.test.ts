/** Every mistake gets a typed error that says where, what was expected and what came; and the engine goes on working. */
import { describe, expect, it } from "vitest";
import * as t from "../src/index.js";
import { scope, type Tensor } from "../src/index.js";

/** Every class has its code. */
const codes = new Map<ErrorClass, string>([
  [t.ShapeError, "ERR_SHAPE"],
  [t.DTypeError, "ERR_DTYPE"],
  [t.OptionError, "ERR_OPTION"],
  [t.DisposedError, "ERR_DISPOSED"],
  [t.OutOfMemoryError, "ERR_OUT_OF_MEMORY"],
]);
type ErrorClass = abstract new (...args: never[]) => t.LlmeffError;

const f = (...shape: number[]) => t.zeros(shape);
const ids = (...values: number[]) => t.tensor(Int32Array.from(values));
const pair = t.tensor(Int32Array.of(0, 0), { shape: [1, 2] });
const wrong = (value: unknown) => value as never;
const qkv: [Tensor, Tensor, Tensor] = [f(1, 4, 2, 4), f(1, 4, 1, 4), f(1, 4, 1, 4)];
const pairs = [f(1, 4, 2, 4), f(1, 4, 1, 4), f(1, 4, 1, 4), f(1, 4, 1, 4), f(1, 4, 1, 4)] as const;
const disposed = () => {
  const x = f(2, 2);
  x.dispose();
  return x;
};

const mistakes: [what: string, call: () => unknown, type: ErrorClass, message: string][] = [
  // Creation.
  ["a ragged array", () => t.tensor([[1, 2], [3]]), t.ShapeError, "rectangular"],
  ["an array that holds a string", () => t.tensor(wrong(["a"])), t.ShapeError, "rectangular"],
  ["a shape of another size", () => t.tensor([1, 2, 3], { shape: [2] }), t.ShapeError, "has 2 elements; received 3"],
  ["nine axes", () => t.zeros([1, 1, 1, 1, 1, 1, 1, 1, 1]), t.ShapeError, "at most 8"],
  ["nine axes in an array", () => t.tensor([[[[[[[[[1]]]]]]]]]), t.ShapeError, "at most 8"],
  [
    "an array that holds itself",
    () => {
      const a: unknown[] = [];
      a.push(a);
      t.tensor(wrong(a));
    },
    t.ShapeError,
    "at most 8",
  ],
  ["a negative dimension", () => t.zeros([2, -1]), t.ShapeError, "non-negative integers"],
  ["a fractional dimension", () => t.zeros([1.5]), t.ShapeError, "non-negative integers"],
  ["no shape", () => t.zeros(wrong(undefined)), t.ShapeError, "a shape is an array"],
  ["an unknown dtype", () => t.zeros([1], { dtype: wrong("float8") }), t.DTypeError, 'received "float8"'],
  ["dtype __proto__", () => t.zeros([1], { dtype: wrong("__proto__") }), t.DTypeError, "__proto__"],
  ["Uint16Array without a dtype", () => t.tensor(new Uint16Array(2)), t.DTypeError, "name the dtype"],
  ["a typed array of another class", () => t.tensor(wrong(new Int8Array(2))), t.DTypeError, "received Int8Array"],
  ["a value that is no number", () => t.full([2], wrong("1")), t.OptionError, "must be a number"],
  ["a fractional seed", () => t.randomUniform({ seed: 0.5 }, [2]), t.OptionError, "seed must be an integer"],
  ["random integers", () => t.randomNormal({ seed: 1 }, [2], { dtype: "int32" }), t.DTypeError, "floating-point"],
  ["more memory than there is", () => t.zeros([2 ** 20, 2 ** 24]), t.OutOfMemoryError, "bytes were asked for"],
  ["more bytes than numbers have", () => t.zeros([2 ** 40, 2 ** 40]), t.OutOfMemoryError, "2^63"],
  // Things that are no tensors.
  ["add(undefined, x)", () => t.add(wrong(undefined), f(1)), t.DTypeError, "a must be a Tensor"],
  ["silu(null)", () => t.silu(wrong(null)), t.DTypeError, "received null"],
  ["sum([1])", () => t.sum(wrong([1])), t.DTypeError, "x must be a Tensor"],
  ["reshape(3)", () => t.reshape(wrong(3), [1]), t.DTypeError, "x must be a Tensor"],
  ["matmul(x, {})", () => t.matmul(f(1, 1), wrong({})), t.DTypeError, "b must be a Tensor"],
  ["concat([x, 1])", () => t.concat([f(1), wrong(1)]), t.DTypeError, "tensors[1] must be a Tensor"],
  ["where(x, …) of floats", () => t.where(f(1), f(1), f(1)), t.DTypeError, "bool condition"],
  ["copyInto(x, undefined)", () => t.copyInto(f(1), wrong(undefined)), t.DTypeError, "source must be a Tensor"],
  // Shapes and dtypes of operations.
  ["shapes that don't broadcast", () => t.add(f(2, 3), f(2)), t.ShapeError, "3 ≠ 2 on axis -1"],
  ["float32 with float64", () => t.mul(f(1), t.zeros([1], { dtype: "float64" })), t.DTypeError, "float32 and float64"],
  ["arithmetic on uint8", () => t.add(t.zeros([1], { dtype: "uint8" }), 1), t.DTypeError, "Use astype()"],
  ["logic on numbers", () => t.logicalAnd(f(2), f(2)), t.DTypeError, "expected two tensors of bool"],
  ["logicalNot of numbers", () => t.logicalNot(f(2)), t.DTypeError, "Compare first"],
  ["any of numbers", () => t.any(f(2)), t.DTypeError, "Compare first"],
  ["atan2 of integers", () => t.atan2(ids(1), ids(1)), t.DTypeError, "one floating-point dtype; received"],
  ["clip with bounds in the wrong order", () => t.clip(f(2), 1, 0), t.OptionError, "min ≤ max"],
  [
    "bfloat16 with float32",
    () => t.add(t.zeros([1], { dtype: "bfloat16" }), f(1)),
    t.DTypeError,
    "bfloat16 and float32. Use astype()",
  ],
  ["arithmetic on bool", () => t.add(t.zeros([1], { dtype: "bool" }), 1), t.DTypeError, "Use astype()"],
  ["gelu of an unknown form", () => t.gelu(f(2), { approximate: "erf" as "none" }), t.OptionError, '"erf"'],
  ["softmax of an axis that isn't there", () => t.softmax(f(2, 3), { axis: 2 }), t.ShapeError, "-2..1"],
  ["dropout of more than everything", () => t.dropout(f(2), 1.5, { seed: 1 }), t.OptionError, "[0, 1]"],
  ["dropout without a key", () => t.dropout(f(2), 0.5, null as never), t.OptionError, "{ seed, stream }"],
  ["a correction that isn't a number", () => t.std(f(2), { correction: NaN }), t.OptionError, "correction"],
  ["a loss of two shapes", () => t.mseLoss(f(4, 1), f(4)), t.ShapeError, "[4, 1] and target is [4]"],
  [
    "an unknown reduction",
    () => t.klDivergence(f(2), f(2), { reduction: "batchmean" as "mean" }),
    t.OptionError,
    '"batchmean"',
  ],
  ["a threshold of zero", () => t.huberLoss(f(2), f(2), { delta: 0 }), t.OptionError, "delta"],
  ["exp of integers", () => t.exp(ids(1)), t.DTypeError, "received int32"],
  ["sum of integers", () => t.sum(ids(1)), t.DTypeError, "received int32"],
  ["the maximum of nothing", () => t.max(f(0)), t.ShapeError, "nothing to reduce"],
  ["an axis past the last", () => t.sum(f(2, 2), { axis: 2 }), t.ShapeError, "-2..1"],
  ["a fractional axis", () => t.sum(f(2, 2), { axis: 0.5 }), t.ShapeError, "axis must be an integer"],
  ["a reshape to no shape", () => t.reshape(f(2), wrong(undefined)), t.ShapeError, "received undefined"],
  ["a permutation of no axes", () => t.permute(f(2), wrong(null)), t.ShapeError, "received null"],
  ["no random key", () => t.randomNormal(wrong(undefined), [1]), t.OptionError, "key must be"],
  ["a random key that is a number", () => t.randomUniform(wrong(3), [1]), t.OptionError, "received 3"],
  ["a reshape of another size", () => t.reshape(f(2, 3), [4]), t.ShapeError, "has 6 elements"],
  ["two unknown dimensions", () => t.reshape(f(2, 3), [-1, -1]), t.ShapeError, "don't fill"],
  ["an unknown dimension that isn't whole", () => t.reshape(f(2, 3), [4, -1]), t.ShapeError, "don't fill"],
  ["a permutation that repeats an axis", () => t.permute(f(2, 3), [0, 0]), t.ShapeError, "each of the 2 axes once"],
  ["a slice past the end", () => t.slice(f(3), 0, 1, 5), t.ShapeError, "no range within"],
  ["a slice backwards", () => t.slice(f(3), 0, 2, 1), t.ShapeError, "no range within"],
  ["a fractional slice", () => t.slice(f(3), 0, 0.5), t.ShapeError, "no range within"],
  ["an expansion of a size that isn't 1", () => t.expand(f(2), [3]), t.ShapeError, "doesn't broadcast"],
  ["a concatenation of nothing", () => t.concat([]), t.OptionError, "at least one"],
  ["a concatenation of other shapes", () => t.concat([f(2, 2), f(2, 3)]), t.ShapeError, "agree except on axis 0"],
  ["inner dimensions", () => t.matmul(f(2, 3), f(2, 3)), t.ShapeError, "Did you mean matmul(a, b.T)?"],
  ["a product with a scalar", () => t.matmul(f(), f(1)), t.ShapeError, "Use mul()"],
  ["linear of another width", () => t.linear(f(2, 3), f(4, 5)), t.ShapeError, "weight [O, I]"],
  ["linear with another bias", () => t.linear(f(2, 3), f(4, 3), f(3)), t.ShapeError, "bias must be [4]"],
  ["softmax of a scalar", () => t.softmax(f()), t.ShapeError, "at least one axis"],
  ["an embedding of floats", () => t.embedding(f(3, 2), f(2)), t.DTypeError, "ids must be int32"],
  ["an embedding of an empty table", () => t.embedding(f(0, 2), ids(0)), t.ShapeError, "V > 0"],
  ["rmsNorm of another width", () => t.rmsNorm(f(2, 3), f(4)), t.ShapeError, "weight [C]"],
  ["a negative eps", () => t.rmsNorm(f(2, 3), f(3), { eps: -1 }), t.OptionError, "eps must be ≥ 0"],
  ["tables of another length", () => t.rope(f(1, 3, 1, 4), f(2, 2), f(2, 2)), t.ShapeError, "tables must be"],
  ["tables of two widths", () => t.rope(f(1, 2, 1, 4), f(2, 2), f(2, 1)), t.ShapeError, "tables differ"],
  ["odd rotary width", () => t.ropeTables(4, 3), t.OptionError, "even"],
  ["gates of two shapes", () => t.swiglu(f(2, 3), f(3, 2)), t.ShapeError, "one shape"],
  ["targets of another shape", () => t.crossEntropy(f(2, 3), ids(1)), t.ShapeError, "targets […]"],
  ["logits without classes", () => t.crossEntropy(f(2, 0), ids(1, 1)), t.ShapeError, "logits […, V]"],
  ["label smoothing of 1", () => t.crossEntropy(f(1, 3), ids(1), { labelSmoothing: 1 }), t.OptionError, "[0, 1)"],
  ["a negative z-loss", () => t.crossEntropy(f(1, 3), ids(1), { zLoss: -1 }), t.OptionError, "zLoss"],
  [
    "a softcap of NaN",
    () => t.linearCrossEntropy(f(1, 3), f(4, 3), ids(1), { softcap: Number.NaN }),
    t.OptionError,
    "softcap",
  ],
  [
    "hidden states of another width",
    () => t.linearCrossEntropyParts(f(1, 3), f(4, 2), ids(1)),
    t.ShapeError,
    "[linearCrossEntropyParts]",
  ],
  [
    "rows of another width than the groups' matrices",
    () => t.groupedMatmul(f(5, 3), f(2, 4, 6), ids(2, 3)),
    t.ShapeError,
    "[groupedMatmul] expected x [A, K] and w [E, K, N]; received [5, 3] and [2, 4, 6]",
  ],
  ["groups of a batch", () => t.groupedMatmul(f(1, 5, 3), f(2, 3, 6), ids(2, 3)), t.ShapeError, "x [A, K]"],
  ["one matrix for all groups", () => t.groupedMatmul(f(5, 3), f(3, 6), ids(2, 3)), t.ShapeError, "w [E, K, N]"],
  [
    "more counts than groups",
    () => t.groupedMatmul(f(5, 3), f(2, 3, 6), ids(2, 2, 1)),
    t.ShapeError,
    "[groupedMatmul] counts must be [2], one for each matrix of w; received [3]",
  ],
  [
    "counts that aren't integers",
    () => t.groupedMatmul(f(5, 3), f(2, 3, 6), f(2)),
    t.DTypeError,
    "counts must be int32",
  ],
  [
    "groups of two dtypes",
    () => t.groupedMatmul(f(5, 3), t.zeros([2, 3, 6], { dtype: "float64" }), ids(2, 3)),
    t.DTypeError,
    "x is float32 and w is float64",
  ],
  [
    "no grouped products",
    () => t.groupedMatmulMany(f(5, 3), [], ids(2)),
    t.OptionError,
    "1 to 8 tensors ws; received 0",
  ],
  [
    "nine grouped products",
    () => t.groupedMatmulMany(f(5, 3), new Array(9).fill(f(1, 3, 2)), ids(5)),
    t.OptionError,
    "received 9",
  ],
  [
    "grouped products of which one doesn't fit",
    () => t.groupedMatmulMany(f(5, 3), [f(1, 3, 2), f(1, 2, 3)], ids(5)),
    t.ShapeError,
    "[groupedMatmulMany] expected x [A, K] and ws[1] [E, K, N]",
  ],
  ["sums of rows of a vector", () => t.gatherSum(f(3), pair, pair), t.ShapeError, "[gatherSum] x must be [R, C]"],
  ["ids in a row", () => t.gatherSum(f(1, 3), ids(0, 0), pair), t.ShapeError, "ids must be [N, k]; received [2]"],
  ["ids that aren't integers", () => t.gatherSum(f(1, 3), f(1, 2), pair), t.DTypeError, "ids must be int32"],
  [
    "an inverse for other rows",
    () => t.gatherSum(f(3, 3), pair, pair),
    t.ShapeError,
    "[gatherSum] inverse must be [3, m]; received [1, 2]",
  ],
  ["weights of another shape", () => t.gatherSum(f(1, 3), pair, pair, f(2)), t.ShapeError, "weights must be [1, 2]"],
  [
    "float64 weights of float32 rows",
    () => t.gatherSum(f(1, 3), pair, pair, t.zeros([1, 2], { dtype: "float64" })),
    t.DTypeError,
    "[gatherSum] weights must be float32",
  ],
  ["the norm of nothing", () => t.globalNorm([]), t.OptionError, "at least one"],
  ["copying another shape", () => t.copyInto(f(2), f(3)), t.ShapeError, "shapes differ"],
  ["item of two elements", () => f(2).itemSync(), t.ShapeError, "expected one element"],
  // Attention.
  ...[0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY].flatMap((window): (typeof mistakes)[number][] => [
    [
      `attention with window ${window}`,
      () => t.attention(...qkv, { window }),
      t.OptionError,
      "window must be a positive integer",
    ],
    [
      `simplicialAttention with w1 ${window}`,
      () => t.simplicialAttention(...pairs, { w1: window }),
      t.OptionError,
      "w1 must be a positive integer",
    ],
    [
      `simplicialAttention with w2 ${window}`,
      () => t.simplicialAttention(...pairs, { w2: window }),
      t.OptionError,
      "w2 must be a positive integer",
    ],
  ]),
  ["heads that don't divide", () => t.attention(f(1, 4, 3, 4), f(1, 4, 2, 4), f(1, 4, 2, 4)), t.ShapeError, "multiple"],
  ["three axes", () => t.attention(f(4, 2, 4), qkv[1], qkv[2]), t.ShapeError, "q must be [B, T, H, D]"],
  ["head size 0", () => t.attention(f(1, 1, 1, 0), f(1, 1, 1, 0), f(1, 1, 1, 2)), t.ShapeError, "head size"],
  ["more queries than keys", () => t.attention(f(1, 5, 1, 4), qkv[1], qkv[2]), t.OptionError, "qOffset"],
  [
    "an infinite scale",
    () => t.attention(...qkv, { scale: Number.POSITIVE_INFINITY }),
    t.OptionError,
    "scale must be a finite number",
  ],
  [
    "keys and values of two lengths",
    () => t.attention(qkv[0], f(1, 4, 1, 4), f(1, 3, 1, 4)),
    t.ShapeError,
    "lengths of k and v",
  ],
  [
    "windows without causality",
    () => t.simplicialAttention(...pairs, { causal: false, w1: 2 }),
    t.OptionError,
    "unlimited windows",
  ],
  [
    "a window that reaches outside",
    () => t.simplicialAttention(...pairs, { w1: 3, k1Offset: 2, qOffset: 2 }),
    t.ShapeError,
    "Check qOffset",
  ],
  ["an unknown form", () => t.simplicialAttention(...pairs, { form: wrong("cubic") }), t.OptionError, "trilinear"],
  // Disposed tensors.
  ["arithmetic on a disposed tensor", () => disposed().add(1), t.DisposedError, "was disposed"],
  ["a view of a disposed tensor", () => disposed().reshape([4]), t.DisposedError, "float32 tensor of shape [2, 2]"],
  ["reading a disposed tensor", () => disposed().dataSync(), t.DisposedError, "keep()"],
  ["a disposed parameter", () => t.valueAndGrad((x: Tensor) => x.sum(), disposed()), t.DisposedError, "was disposed"],
  // Scopes and gradients.
  [
    "an asynchronous scope",
    () => scope(async () => f(1).data()),
    t.OptionError,
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
    "[valueAndGrad]",
  ],
  [
    "a loss of two elements",
    () => t.valueAndGrad((x: Tensor) => x.mul(2), f(2)),
    t.ShapeError,
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
    "floating-point tensor",
  ],
  ["an integer loss", () => t.valueAndGrad(() => ids(1), f(2)), t.OptionError, "int32"],
  ["integer parameters", () => t.valueAndGrad((x: Tensor) => x, ids(1)), t.DTypeError, "floating-point"],
  [
    "one tensor in two places",
    () => {
      const w = f(1);
      t.grad((p: Tensor[]) => p[0]!.sum(), [w, w]);
    },
    t.OptionError,
    "twice",
  ],
  [
    "a gradient of a gradient by the same parameter",
    () => t.grad((x: Tensor) => t.grad((y: Tensor) => y.square().sum(), x).sum(), f(2)),
    t.OptionError,
    "Gradients of gradients",
  ],
  [
    "an inner gradient through an outer tensor",
    () => t.grad((x: Tensor) => t.grad((y: Tensor) => y.mul(x).sum(), f(2)).sum(), f(2)),
    t.OptionError,
    "another valueAndGrad",
  ],
  [
    "a gradient of another shape from defineOp",
    () => {
      const op = t.defineOp<undefined>({ name: "odd", forward: (_c, [x]) => x!.clone(), backward: () => [f(3)] });
      t.grad((x: Tensor) => op([x], undefined).sum(), f(2));
    },
    t.ShapeError,
    "[odd] backward returned",
  ],
];

describe("mistakes", () => {
  it.each(mistakes)("%s", (_what, call, type, message) => {
    const before = t.memory().tensors;
    let error: unknown;
    try {
      scope(call);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(type);
    expect(error).toMatchObject({ code: codes.get(type), message: expect.stringContaining(message) });
    expect((error as Error).message).toMatch(/^\[[\w@/.:]+\] /);
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
