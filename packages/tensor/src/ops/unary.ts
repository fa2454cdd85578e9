import { DTypeError, engine, OptionError, UnaryOp } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { type DType, isFloating } from "../dtype.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";

type Name = keyof typeof UnaryOp;

/** What the functions of integers take beside the floating-point dtypes. */
const ofIntegers: ReadonlySet<Name> = new Set(["neg", "abs", "square", "sign"]);

function compute(name: Name, x: Tensor, out: DType = x.dtype): Tensor {
  checkTensor(name, "x", x);
  const integers = ofIntegers.has(name);
  if (!isFloating(x.dtype) && !(x.dtype === "int32" && integers)) {
    throw new DTypeError(
      `[${name}] expected a floating-point tensor${integers ? " or int32" : ""}; received ${x.dtype}. Use astype().`,
    );
  }
  const y = Tensor.allocate(out, x.shape, x.deviceNumber);
  engine().op.unary(UnaryOp[name], x.handle, y.handle);
  return y;
}

/** A function of each element; its gradient is one kernel, which needs the argument alone. */
function define(name: Name) {
  const op = defineOp<undefined>({
    name,
    forward(context, [x]) {
      context.save(x!);
      return compute(name, x!);
    },
    backward({ saved: [x] }, dout) {
      const dx = Tensor.allocate(x!.dtype, x!.shape);
      engine().op.unaryGrad(UnaryOp[name], x!.handle, dout.handle, dx.handle);
      return [dx];
    },
  });
  return (x: Tensor) => op([x], undefined);
}

// float32 results are right to 2 units in the last place; beside each function that is not: how far it may be off.

/** `−x`; also of int32. */
export const neg = define("neg");
/** `|x|`, with derivative 0 at 0; also of int32. */
export const abs = define("abs");
/** `x²`; also of int32. */
export const square = define("square");
export const sqrt = define("sqrt");
/** `x^(-1/2)` */
export const rsqrt = define("rsqrt");
/** `1/x` */
export const reciprocal = define("reciprocal");
export const exp = define("exp");
/** `eˣ − 1`, exact for small x too. */
export const expm1 = define("expm1");
/** The natural logarithm; −∞ at 0, NaN below. */
export const log = define("log");
/** `ln(1 + x)`, exact for small x too. */
export const log1p = define("log1p");
/** Any argument is reduced exactly, however large. */
export const sin = define("sin");
/** Any argument is reduced exactly, however large. */
export const cos = define("cos");
export const tan = define("tan");
export const asin = define("asin");
export const acos = define("acos");
export const atan = define("atan");
export const sinh = define("sinh");
export const cosh = define("cosh");
export const tanh = define("tanh");
/** The error function, `2/√π ∫₀ˣ exp(−t²) dt`. */
export const erf = define("erf");
/** `1 / (1 + e⁻ˣ)`, to 3 units in the last place. */
export const sigmoid = define("sigmoid");
/** `ln(1 + eˣ)` without overflow */
export const softplus = define("softplus");
/** `x · sigmoid(x)`, to 4 units in the last place above −87; below, the sigmoid is a subnormal number. */
export const silu = define("silu");
/** `max(x, 0)`, with derivative 0 at 0 */
export const relu = define("relu");

const geluTanh = define("gelu");
const geluErf = define("geluErf");

export interface GeluOptions {
  /**
   * "tanh" (the default here): `x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))`, as GPT-2 has it. "none": `x · Φ(x)` with the normal distribution
   * function, as BERT has it, and PyTorch unless told otherwise.
   */
  approximate?: "tanh" | "none";
}

/**
 * Gaussian error linear unit (Hendrycks, Gimpel 2016). The exact form is right to 6 units in the last place above −13, where
 * `1 + erf` would have cancelled long since; the relative error of the tanh form grows there with its exponent.
 *
 * @example
 * gelu(x, { approximate: "none" }); // torch.nn.functional.gelu(x)
 */
export function gelu(x: Tensor, { approximate = "tanh" }: GeluOptions = {}): Tensor {
  if (approximate !== "tanh" && approximate !== "none") {
    throw new OptionError(`[gelu] approximate must be "tanh" or "none"; received ${JSON.stringify(approximate)}.`);
  }
  return approximate === "tanh" ? geluTanh(x) : geluErf(x);
}

// Constant almost everywhere: their gradient is zero.

/** The next integer below. */
export function floor(x: Tensor): Tensor {
  return compute("floor", x);
}
/** The next integer above. */
export function ceil(x: Tensor): Tensor {
  return compute("ceil", x);
}
/** The nearest integer, halves to the even one. */
export function round(x: Tensor): Tensor {
  return compute("round", x);
}
/** The next integer towards zero. */
export function trunc(x: Tensor): Tensor {
  return compute("trunc", x);
}
/** −1, 0 or 1; also of int32. */
export function sign(x: Tensor): Tensor {
  return compute("sign", x);
}

/** Whether each element is neither infinite nor NaN: a bool tensor. */
// biome-ignore lint/suspicious/noShadowRestrictedNames: the name that NumPy and every array library give it
export function isFinite(x: Tensor): Tensor {
  return compute("isFinite", x, "bool");
}
/** Whether each element is not a number: a bool tensor. */
// biome-ignore lint/suspicious/noShadowRestrictedNames: the name that NumPy and every array library give it
export function isNaN(x: Tensor): Tensor {
  return compute("isNaN", x, "bool");
}
/** The opposite of each element of a bool tensor. */
export function logicalNot(x: Tensor): Tensor {
  checkTensor("logicalNot", "x", x);
  if (x.dtype !== "bool") {
    throw new DTypeError(`[logicalNot] expected bool; received ${x.dtype}. Compare first, e.g. notEqual(x, 0).`);
  }
  const y = Tensor.allocate("bool", x.shape, x.deviceNumber);
  engine().op.unary(UnaryOp.logicalNot, x.handle, y.handle);
  return y;
}
