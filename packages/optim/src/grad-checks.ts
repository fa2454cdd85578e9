/**
 * What a step checks before it changes anything: that gradients, parameters and state are what the optimizer was made for.
 */
import { DeviceError, DTypeError, OptionError, ShapeError } from "@llmeff/native";
import { preview } from "./groups.js";
import type { Slot } from "./optimizer-types.js";
import { describe, deviceOf, type Parameter, shapeOfParameter, sizeOf } from "./storage.js";

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
  return [...slots.keys()].filter((name) => grads[name] !== undefined);
}

function requireSameKind(where: string, { name, param }: Slot<Parameter>, grad: Parameter): void {
  if (describe(grad) !== describe(param)) {
    throw new DTypeError(
      `[${where}] the gradient of "${name}" must be a ${describe(param)}; received ${describe(grad)}.`,
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
