import { DTypeError, engine, UnaryOp } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { isFloating } from "../dtype.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { greater, less, mul } from "./binary.js";

type Name = keyof typeof UnaryOp;

function compute(name: Name, x: Tensor): Tensor {
  checkTensor(name, "x", x);
  const integers = name === "neg" || name === "abs" || name === "square";
  if (!isFloating(x.dtype) && !(x.dtype === "int32" && integers)) {
    throw new DTypeError(
      `[${name}] expected a floating-point tensor${integers ? " or int32" : ""}; received ${x.dtype}. Use astype().`,
    );
  }
  const out = Tensor.allocate(name === "isFinite" ? "bool" : x.dtype, x.shape);
  engine().op.unary(UnaryOp[name], x.handle, out.handle);
  return out;
}

/** A unary op whose gradient is `dout · slope(x, y)`, y the result. */
function define(name: Name, slope: (x: Tensor, y: Tensor) => Tensor | number) {
  const op = defineOp<undefined>({
    name,
    forward(context, [x]) {
      const y = compute(name, x!);
      context.save(x!, y);
      return y;
    },
    backward: ({ saved: [x, y] }, dout) => [mul(dout, slope(x!, y!))],
  });
  return (x: Tensor) => op([x], undefined);
}

const geluSlope = (x: Tensor): Tensor => {
  const c = Math.sqrt(2 / Math.PI);
  const t = tanh(x.add(x.pow(3).mul(0.044715)).mul(c));
  const inner = x
    .square()
    .mul(3 * 0.044715)
    .add(1)
    .mul(c);
  return t
    .add(1)
    .mul(0.5)
    .add(x.mul(0.5).mul(t.square().neg().add(1)).mul(inner));
};

export const neg = define("neg", () => -1);
export const abs = define("abs", (x) => greater(x, 0).astype(x.dtype).sub(less(x, 0).astype(x.dtype)));
export const exp = define("exp", (_x, y) => y);
export const log = define("log", (x) => reciprocal(x));
export const sqrt = define("sqrt", (_x, y) => reciprocal(y).mul(0.5));
/** `x^(-1/2)` */
export const rsqrt = define("rsqrt", (x, y) => y.div(x).mul(-0.5));
export const reciprocal = define("reciprocal", (_x, y) => y.square().neg());
export const square = define("square", (x) => x.mul(2));
export const sin = define("sin", (x) => cos(x));
export const cos = define("cos", (x) => sin(x).neg());
export const tanh = define("tanh", (_x, y) => y.square().neg().add(1));
export const sigmoid = define("sigmoid", (_x, y) => y.sub(y.square()));
/** `x · sigmoid(x)` */
export const silu = define("silu", (x, y) => {
  const s = sigmoid(x);
  return s.add(y.mul(s.neg().add(1)));
});
/** Gaussian error linear unit in its tanh form, `x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))`. */
export const gelu = define("gelu", (x) => geluSlope(x));
export const relu = define("relu", (x) => greater(x, 0).astype(x.dtype));

/** Whether each element is neither infinite nor NaN: a bool tensor. */
// biome-ignore lint/suspicious/noShadowRestrictedNames: the name that NumPy and every array library give it
export function isFinite(x: Tensor): Tensor {
  return compute("isFinite", x);
}
