import { OptionError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import type { Tensor } from "../tensor.js";
import { checkFloating } from "./arguments.js";
import { equal, maximum, minimum } from "./binary.js";
import { where } from "./where.js";

interface Bounds {
  min: number;
  max: number;
}

const clipOp = defineOp<Bounds>({
  name: "clip",
  forward(context, [x], { min, max }) {
    const out = minimum(maximum(x!, min), max);
    context.save(x!, out);
    return out;
  },
  backward: ({ saved: [x, out] }, dout) => [where(equal(x!, out!), dout, 0)],
});

/**
 * `x` where it lies between `min` and `max`, else the nearer of them; NaN stays. The gradient passes where `x` was kept, the bounds included.
 *
 * @param min - may be `-Infinity`
 * @param max - may be `Infinity`
 */
export function clip(x: Tensor, min: number, max: number): Tensor {
  checkFloating("clip", { x });
  if (typeof min !== "number" || typeof max !== "number" || !(min <= max)) {
    throw new OptionError(`[clip] expected numbers min ≤ max; received ${min} and ${max}.`);
  }
  return clipOp([x], { min, max });
}
