import { scope } from "../../scope.js";
import type { Tensor } from "../../tensor.js";

/** `(x + xᵀ) / 2`: the gradient of a symmetric matrix, which moves on either side of its diagonal alike. */
export function symmetrized(x: Tensor): Tensor {
  return scope(() => x.add(x.T).mul(0.5));
}
