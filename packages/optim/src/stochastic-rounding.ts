/**
 * State in bfloat16: averages are rounded stochastically, so that increments below half a unit of the last place count on average. The rule,
 * of the fused kernel and here: the lower 16 bits of a float32 number are added to 16 random ones, and a carry rounds its magnitude up.
 */
import {
  abs,
  add,
  astype,
  div,
  floor,
  greaterEqual,
  lessEqual,
  mul,
  randomUniform,
  sub,
  type Tensor,
  where,
} from "@llmeff/tensor";

/** What the random numbers of one array of state and one step are drawn with. */
export interface RoundingKey {
  seed: number;
  /** Of the parameter. */
  id: number;
  /** 0: m; 1 + k: diagonal k; 12: rms. */
  array: number;
  /** 1-based. */
  step: number;
}

export const arrayOfRms = 12;
/** What steps stay below, and ids below 2^17, so that a stream is one integer. */
const mostSteps = 2 ** 32;

/**
 * `x`, float32, rounded to bfloat16. Element j of the row-major `x` uses word j of the Philox stream of its key.
 *
 * @param arrange - puts a tensor of the shape `drawn`, in whose order the random numbers are, into that of `x`
 */
export function roundStochastically(
  x: Tensor,
  { seed, id, array, step }: RoundingKey,
  drawn: readonly number[],
  arrange: (random: Tensor) => Tensor,
): Tensor {
  const stream = (id * 16 + array) * mostSteps + step;
  // The upper 16 bits of a word, over 2^16.
  const random = mul(
    floor(mul(arrange(randomUniform({ seed, stream }, drawn, { device: x.device })), 65536)),
    2 ** -16,
  );
  const wide = (y: Tensor) => astype(y, "float32");
  const nearest = wide(astype(x, "bfloat16"));
  // A bfloat16 number times 1 ± 5/4 · 2^-8 lies nearest to its neighbour.
  const neighbour = (y: Tensor, sign: number) => wide(astype(mul(y, 1 + sign * 1.25 * 2 ** -8), "bfloat16"));
  const towardsZero = where(lessEqual(abs(nearest), abs(x)), nearest, neighbour(nearest, -1));
  const away = neighbour(towardsZero, 1);
  // 0 / 0 where x is 0 or infinite: not rounded up.
  const part = div(sub(x, towardsZero), sub(away, towardsZero));
  return astype(where(greaterEqual(add(part, random), 1), away, towardsZero), "bfloat16");
}
