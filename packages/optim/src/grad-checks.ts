/**
 * What a step checks before it changes anything: that gradients, parameters and state are what the optimizer was made for.
 */
import { DeviceError, DTypeError, OptionError, ShapeError } from "@llmeff/native";
import { preview } from "./groups.js";
import type { Slot } from "./optimizer-types.js";
import { shapeOfParameter } from "./parameter-shapes.js";
import { own } from "./records.js";
import { describe, deviceOf, type Parameter, sizeOf } from "./storage.js";

/** Names with a gradient, in the order of the parameters; those that are frozen are left out. */
export function checkGrads<P extends Parameter>(
  where: string,
  slots: ReadonlyMap<string, Slot<P>>,
  frozen: ReadonlySet<string>,
  grads: Readonly<Record<string, P>>,
): string[] {
  for (const [name, grad] of Object.entries(grads)) {
    if (grad === undefined || frozen.has(name)) continue;
    const slot = slots.get(name);
    if (!slot) {
      throw new OptionError(
        `[${where}] there is no parameter "${name}". Parameters: ${preview([...slots.keys(), ...frozen])}.`,
      );
    }
    requireSameKind(where, slot, grad);
    requirePresent(where, slot);
    const got = shapeOfParameter(where, name, grad);
    const want = shapeOfParameter(where, name, slot.param);
    if (got.length !== want.length || got.some((n, axis) => n !== want[axis])) {
      throw new ShapeError(
        `[${where}] the gradient of "${name}" must have shape [${want.join(", ")}]; received [${got.join(", ")}].`,
      );
    }
  }
  const names = [...slots.keys()].filter((name) => own(grads, name) !== undefined);
  requireOneKind(
    where,
    names.map((name) => [name, grads[name]!]),
  );
  return names;
}

/** Refuses gradients of which some have the dtype of 16-bit parameters and others that of their masters: kernels take lists of one dtype. @internal */
export function requireOneKind(where: string, grads: readonly (readonly [string, Parameter])[]): void {
  const [first] = grads;
  const other = grads.find(([, grad]) => describe(grad) !== describe(first![1]));
  if (other === undefined) return;
  throw new DTypeError(
    `[${where}] the gradients of a step must be of one kind; that of "${first![0]}" is a ${describe(first![1])}, that of "${other[0]}" a ${describe(other[1])}.`,
  );
}

/** Of 16-bit parameters a gradient may be as wide as the master: what was summed up or unscaled in float32. */
function requireSameKind(where: string, { name, param, state }: Slot<Parameter>, grad: Parameter): void {
  const kinds = [param, ...(state.master === undefined ? [] : [state.master])].map(describe);
  if (!kinds.includes(describe(grad))) {
    throw new DTypeError(
      `[${where}] the gradient of "${name}" must be a ${kinds.join(" or a ")}; received ${describe(grad)}.`,
    );
  }
  if (deviceOf(grad) !== deviceOf(param)) {
    throw new DeviceError(
      `[${where}] the gradient of "${name}" must be on ${deviceOf(param)}, where the parameter is; received one on ${deviceOf(grad)}.`,
    );
  }
}

/** A typed array loses its elements when its buffer is transferred, and may grow or shrink with it. */
function requirePresent(where: string, { name, param, shape, state, sizes }: Slot<Parameter>): void {
  const paramSize = shape.reduce((product, n) => product * n, 1);
  for (const [what, array] of [["parameter", param] as const, ...Object.entries(state)]) {
    const size = array === param ? paramSize : sizes[what]!;
    if (sizeOf(array) === size) continue;
    const which = array === param ? `parameter "${name}"` : `state "${name}.${what}"`;
    throw new ShapeError(
      `[${where}] ${which} had ${size} elements when the optimizer was made and now has ${sizeOf(array)}. ` +
        "Was its buffer transferred or resized? Make a new optimizer.",
    );
  }
}
