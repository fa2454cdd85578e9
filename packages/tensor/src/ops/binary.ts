import { BinaryOp, DTypeError, engine } from "@llmeff/native";
import { type BackwardContext, defineOp } from "../autograd.js";
import { commonDevice } from "../device.js";
import { isFloating } from "../dtype.js";
import { scope } from "../scope.js";
import { broadcastShapes, type Shape } from "../shape.js";
import { noGrad } from "../tape.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { filled } from "./creation.js";
import { sum } from "./reduce.js";
import { floor, log, sigmoid } from "./unary.js";
import { expandView, reshape } from "./views.js";
import { where } from "./where.js";

type Name = keyof typeof BinaryOp;

const comparisons: ReadonlySet<Name> = new Set(["equal", "notEqual", "less", "lessEqual", "greater", "greaterEqual"]);
const logical: ReadonlySet<Name> = new Set(["logicalAnd", "logicalOr", "logicalXor"]);
const inputNames = ["a", "b"] as const;
const floatingOnly: ReadonlySet<Name> = new Set(["atan2", "logAddExp"]);

function compute(name: Name, a: Tensor, b: Tensor): Tensor {
  const takes = logical.has(name)
    ? "bool"
    : floatingOnly.has(name)
      ? "one floating-point dtype"
      : "one floating-point dtype or int32";
  const computed = logical.has(name)
    ? a.dtype === "bool"
    : isFloating(a.dtype) || (a.dtype === "int32" && !floatingOnly.has(name));
  if (a.dtype !== b.dtype || !computed) {
    throw new DTypeError(
      `[${name}] expected two tensors of ${takes}; received ${a.dtype} and ${b.dtype}. Use astype().`,
    );
  }
  const shape = broadcastShapes(name, a.shape, b.shape);
  const device = commonDevice(name, [a, b], inputNames);
  const out = Tensor.allocate(comparisons.has(name) ? "bool" : a.dtype, shape, device);
  engine().op.binary(BinaryOp[name], expandView(a, shape).handle, expandView(b, shape).handle, out.handle);
  return out;
}

/** Sums a gradient over the axes along which its input was broadcast. */
export function sumTo(grad: Tensor, shape: Shape): Tensor {
  const lead = grad.rank - shape.length;
  const axes: number[] = [];
  for (let axis = 0; axis < grad.rank; axis++) {
    if (axis < lead || (shape[axis - lead] === 1 && grad.shape[axis] !== 1)) axes.push(axis);
  }
  if (axes.length === 0) return grad;
  return reshape(sum(grad, { axis: axes, keepDims: true }), shape);
}

/** What a gradient may read: the inputs and the result. */
interface Saved {
  a: Tensor;
  b: Tensor;
  out: Tensor;
}
type Partials = (saved: Saved, dout: Tensor) => [() => Tensor, () => Tensor];
type Reads = readonly (keyof Saved)[];

/** A binary op whose gradients are `partials`, before they are summed to the shapes of the inputs, and what each of the two reads. */
function defineBinary(name: Name, reads: readonly [Reads, Reads], partials: Partials) {
  const kept = (needs: readonly boolean[]) =>
    (["a", "b", "out"] as const).filter((key) => reads.some((read, i) => needs[i] && read.includes(key)));
  return defineOp<undefined>({
    name,
    inputNames,
    forward({ needs, recording, save }, [a, b]) {
      const out = compute(name, a!, b!);
      const all: Saved = { a: a!, b: b!, out };
      if (recording) save(...kept(needs).map((key) => all[key]));
      return out;
    },
    backward({ needs, saved, shapes }: BackwardContext<undefined>, dout) {
      const known = Object.fromEntries(kept(needs).map((key, i) => [key, saved[i]])) as unknown as Saved;
      return partials(known, dout).map((partial, i) => (needs[i] ? sumTo(partial(), shapes[i]!) : null));
    },
  });
}

const both: Reads = ["a", "b"];

const operations = {
  add: defineBinary("add", [[], []], (_, g) => [() => g, () => g]),
  sub: defineBinary("sub", [[], []], (_, g) => [() => g, () => g.neg()]),
  mul: defineBinary("mul", [["b"], ["a"]], ({ a, b }, g) => [() => g.mul(b), () => g.mul(a)]),
  div: defineBinary("div", [["b"], ["b", "out"]], ({ b, out }, g) => [() => g.div(b), () => g.mul(out).div(b).neg()]),
  // d/da a^b = b a^(b-1), and 0 where b is 0; d/db a^b = a^b ln a, and 0 where a or a^b is 0: the products would be 0 · inf, or at 0^0 −inf.
  pow: defineBinary("pow", [both, ["a", "out"]], ({ a, b, out }, g) => [
    () => where(equal(b, 0), 0, g.mul(b).mul(pow(a, b.sub(1)))),
    () => where(logicalOr(equal(a, 0), equal(out, 0)), 0, g.mul(out).mul(log(a))),
  ]),
  // On ties each input gets half.
  maximum: defineBinary("maximum", [both, both], ({ a, b }, g) => [() => share(g, a, b), () => share(g, b, a)]),
  minimum: defineBinary("minimum", [both, both], ({ a, b }, g) => [() => share(g, b, a), () => share(g, a, b)]),
  atan2: defineBinary("atan2", [both, both], ({ a, b }, g) => {
    const overSquare = () => g.div(a.square().add(b.square()));
    return [() => overSquare().mul(b), () => overSquare().mul(a).neg()];
  }),
  remainder: defineBinary("remainder", [[], both], ({ a, b }, g) => [() => g, () => g.mul(floorDivide(a, b)).neg()]),
  logAddExp: defineBinary("logAddExp", [both, both], ({ a, b }, g) => [
    () => g.mul(sigmoid(a.sub(b))),
    () => g.mul(sigmoid(b.sub(a))),
  ]),
};

/** dout where x > y, half of it where they are equal, else 0. */
function share(dout: Tensor, x: Tensor, y: Tensor): Tensor {
  const weight = greater(x, y).astype(dout.dtype).add(equal(x, y).astype(dout.dtype).mul(0.5));
  return dout.mul(weight);
}

/** A number takes the dtype of the tensor it meets, and goes where it is. */
export function operands(where: string, a: Tensor | number, b: Tensor | number): [Tensor, Tensor] {
  if (a instanceof Tensor && typeof b === "number") return [a, filled(b, a.dtype, [], a.deviceNumber)];
  if (typeof a === "number" && b instanceof Tensor) return [filled(a, b.dtype, [], b.deviceNumber), b];
  checkTensor(where, "a", a);
  checkTensor(where, "b", b);
  return [a, b];
}

function apply(name: keyof typeof operations, a: Tensor | number, b: Tensor | number): Tensor {
  if (a instanceof Tensor && b instanceof Tensor) return operations[name]([a, b], undefined);
  return scope(() => operations[name](operands(name, a, b), undefined));
}

function compare(name: Name, a: Tensor | number, b: Tensor | number): Tensor {
  return scope(() => compute(name, ...operands(name, a, b)));
}

// All broadcast as NumPy does; one side may be a number. Both sides have one floating-point dtype, or int32.

/** `a + b` */
export function add(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("add", a, b);
}
/** `a − b` */
export function sub(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("sub", a, b);
}
/** `a · b`, element by element */
export function mul(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("mul", a, b);
}
/** `a / b`; of int32 rounded towards zero, and 0 by zero. */
export function div(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("div", a, b);
}
/** `a^b`; of int32 0 for a negative exponent, unless `a` is ±1. */
export function pow(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("pow", a, b);
}
/** The larger of each pair; NaN if either is. Equal ones get half of the gradient each. */
export function maximum(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("maximum", a, b);
}
/** The smaller of each pair; NaN if either is. Equal ones get half of the gradient each. */
export function minimum(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("minimum", a, b);
}
/** The angle of the point (b, a), in (−π, π]; floating-point only. */
export function atan2(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("atan2", a, b);
}
/** `a − b · floor(a / b)`: the remainder with the sign of `b`, as Python's `%`. By zero it is NaN, of int32 0. */
export function remainder(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("remainder", a, b);
}
/** `ln(eᵃ + eᵇ)` without overflow; floating-point only. */
export function logAddExp(a: Tensor | number, b: Tensor | number): Tensor {
  return apply("logAddExp", a, b);
}
/** The quotient rounded down, as Python's `//`; its gradient is zero. */
export function floorDivide(a: Tensor | number, b: Tensor | number): Tensor {
  return noGrad(() =>
    scope(() => {
      const [x, y] = operands("div", a, b);
      return x.dtype === "int32" ? div(sub(x, remainder(x, y)), y) : floor(div(x, y));
    }),
  );
}
/** Whether both hold, of bool tensors. */
export function logicalAnd(a: Tensor, b: Tensor): Tensor {
  return compare("logicalAnd", a, b);
}
/** Whether one or both hold, of bool tensors. */
export function logicalOr(a: Tensor, b: Tensor): Tensor {
  return compare("logicalOr", a, b);
}
/** Whether exactly one holds, of bool tensors. */
export function logicalXor(a: Tensor, b: Tensor): Tensor {
  return compare("logicalXor", a, b);
}
/** `a = b`, a bool tensor; so are the other comparisons. */
export function equal(a: Tensor | number, b: Tensor | number): Tensor {
  return compare("equal", a, b);
}
export function notEqual(a: Tensor | number, b: Tensor | number): Tensor {
  return compare("notEqual", a, b);
}
export function less(a: Tensor | number, b: Tensor | number): Tensor {
  return compare("less", a, b);
}
export function lessEqual(a: Tensor | number, b: Tensor | number): Tensor {
  return compare("lessEqual", a, b);
}
export function greater(a: Tensor | number, b: Tensor | number): Tensor {
  return compare("greater", a, b);
}
export function greaterEqual(a: Tensor | number, b: Tensor | number): Tensor {
  return compare("greaterEqual", a, b);
}
