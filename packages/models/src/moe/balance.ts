/** Balancing without a loss, and how balanced a router is. */
import { add, mean, mul, sign, sub, type Tensor } from "@llmeff/tensor";

/**
 * The bias of a router's choices after a step (arXiv:2408.15664): `b_e + rate · sign(mean load − load_e)`.
 *
 * @param bias - `[E]`
 * @param load - int32 `[E]`, of the whole batch: summed over micro-batches and ranks
 */
export function nextRouterBias(bias: Tensor, load: Tensor, rate = 1e-3): Tensor {
  const loads = load.astype(bias.dtype);
  return add(bias, mul(sign(sub(mean(loads), loads)), rate));
}

/** How a router spreads its tokens. */
export interface RouterBalance {
  /** The fullest expert's load over the mean; 1 when balanced. */
  maxOverMean: number;
  /** Entropy of the shares in nats; `ln E` when balanced. */
  entropy: number;
  /** Experts that no token chose. */
  dead: number;
}

/** Measures of the loads of a router's experts. */
export function routerBalance(load: ArrayLike<number>): RouterBalance {
  const loads = Array.from(load);
  const total = loads.reduce((a, b) => a + b, 0);
  const shares = loads.filter((n) => n > 0).map((n) => n / total);
  return {
    maxOverMean: total === 0 ? 1 : (Math.max(...loads) * loads.length) / total,
    entropy: -shares.reduce((sum, share) => sum + share * Math.log(share), 0),
    dead: loads.length - shares.length,
  };
}
