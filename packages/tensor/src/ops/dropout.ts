import { engine, OptionError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { Tensor } from "../tensor.js";
import { checkFloating } from "./arguments.js";
import { checkKey, type EngineKey, type RandomKey } from "./creation.js";

interface Dropping extends EngineKey {
  rate: number;
}

function drop(x: Tensor, { rate, seed, stream }: Dropping): Tensor {
  if (rate === 0) return x.view(x.shape, x.strides);
  const out = Tensor.allocate(x.dtype, x.shape);
  engine().op.dropout(x.handle, rate, seed, stream, out.handle);
  return out;
}

// The same key makes the same mask again: the gradient needs nothing else.
const dropoutOp = defineOp<Dropping>({
  name: "dropout",
  forward: (_context, [x], options) => drop(x!, options),
  backward: ({ options }, dout) => [drop(dout, options)],
});

/**
 * Zeroes each element with probability `rate` and divides the others by `1 − rate` (Srivastava et al. 2014). Element i is dropped when the i-th
 * number of `randomUniform(key, …)` in float32 is below the rate: the same key drops the same places, on every device.
 *
 * @param rate - in [0, 1]; 0 changes nothing
 * @param key - a new stream for every layer and step
 *
 * @example
 * dropout(x, 0.1, { seed: 42, stream: step });
 */
export function dropout(x: Tensor, rate: number, key: RandomKey): Tensor {
  checkFloating("dropout", { x });
  if (typeof rate !== "number" || !(rate >= 0 && rate <= 1)) {
    throw new OptionError(`[dropout] rate must be a number in [0, 1]; received ${rate}.`);
  }
  return dropoutOp([x], { rate, ...checkKey("dropout", key) });
}
