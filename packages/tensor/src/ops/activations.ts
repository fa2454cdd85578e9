/** Activations that other functions make up. */

import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { checkFinite } from "./arguments.js";
import { greater } from "./binary.js";
import { clip } from "./clip.js";
import { expm1, neg, softplus } from "./unary.js";
import { where } from "./where.js";

/** `ln(sigmoid(x))` without underflow */
export function logSigmoid(x: Tensor): Tensor {
  return scope(() => neg(softplus(neg(x))));
}

/** `x` above 0, `slope · x` elsewhere (Maas, Hannun, Ng 2013). */
export function leakyRelu(x: Tensor, slope = 0.01): Tensor {
  checkFinite("leakyRelu", "slope", slope);
  return scope(() => where(greater(x, 0), x, x.mul(slope)));
}

/** `x` above 0, `alpha · (eˣ − 1)` elsewhere (Clevert, Unterthiner, Hochreiter 2015). */
export function elu(x: Tensor, alpha = 1): Tensor {
  checkFinite("elu", "alpha", alpha);
  // The exponential of what is above 0 would be infinite, and its gradient with it.
  return scope(() => where(greater(x, 0), x, expm1(clip(x, -Infinity, 0)).mul(alpha)));
}
