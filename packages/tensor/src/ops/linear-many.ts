import { engine, OptionError, ShapeError } from "@llmeff/native";
import { commonDevice, onDevice } from "../device.js";
import { scope } from "../scope.js";
import { formatShape } from "../shape.js";
import { currentTape } from "../tape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, leadingSize, rows } from "./arguments.js";
import { concat } from "./concat.js";
import { linear } from "./linear.js";
import { split } from "./slice.js";

/** Rows from which on copying the weights to one place costs less than the products gain. With few, reading them is all the work. */
export const manyRows = 256;

/** Whether the engine takes the products in one call. */
const fitOneCall = (weights: readonly Tensor[]) => weights.length <= 8 && weights.every(({ size }) => size > 0);

/** The products into one array, without a gradient and without copying the weights. */
function products(x: Tensor, weights: readonly Tensor[]): Tensor {
  const sizes = weights.reduce((sum, weight) => sum + weight.shape[0]!, 0);
  const device = commonDevice("linearMany", [x, ...weights]);
  return onDevice(device, () => {
    const out = Tensor.allocate(x.dtype, x.shape.with(-1, sizes));
    const handles = weights.map((weight) => rows(weight).handle);
    engine().op.linearMany(rows(x).handle, handles, out.handle);
    return out;
  });
}

/**
 * Several fully connected layers of one input, `x · weights[i]ᵀ`, as one product: of many rows its tiles fill the machine better, and the
 * gradient of `x` needs no sum over the layers. The results are the parts of one array, views with gaps between their rows; where their
 * gradients lie side by side again, as those of `attention` and `swiglu` do, nothing is copied.
 *
 * @param x - `[…, I]`
 * @param weights - `[Oᵢ, I]` each
 * @returns `[…, Oᵢ]` for each
 * @throws {ShapeError} if the sizes don't fit
 *
 * @example
 * const [gate, up] = linearMany(x, [gateWeight, upWeight]);
 * const hidden = swiglu(gate, up);
 */
export function linearMany<W extends readonly Tensor[]>(x: Tensor, weights: W): { [K in keyof W]: Tensor } {
  if (weights.length === 0) throw new OptionError("[linearMany] expected at least one weight; received none.");
  for (const [i, weight] of weights.entries()) {
    checkFloating("linearMany", { x, [`weights[${i}]`]: weight });
    if (weight.rank !== 2 || x.rank === 0 || x.shape.at(-1) !== weight.shape[1]) {
      throw new ShapeError(
        `[linearMany] expected x […, I] and weights[${i}] [O, I]; received ${formatShape(x.shape)} and ${formatShape(weight.shape)}.`,
      );
    }
  }
  const many = leadingSize(x.shape) >= manyRows;
  const needsGradient = currentTape()?.needsOf("linearMany", [x, ...weights]) !== undefined;
  const together = weights.length > 1 && (many || (!needsGradient && fitOneCall(weights)));
  const results = together
    ? scope(() => {
        const sizes = weights.map((weight) => weight.shape[0]!);
        return split(many ? linear(x, concat(weights)) : products(x, weights), sizes, -1);
      })
    : weights.map((weight) => linear(x, weight));
  return results as { [K in keyof W]: Tensor };
}
