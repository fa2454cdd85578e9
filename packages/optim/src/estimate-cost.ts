/**
 * What an optimizer will cost, before anything is allocated.
 */
import { OptionError } from "@llmeff/native";
import { checkOneOf } from "./check.js";
import { type RuleCostOptions, type RuleName, ruleCosts } from "./rule-costs.js";

export interface CostEstimate {
  /** Numbers in the parameters. */
  params: number;
  /** What `stateBytes()` will be: state arrays and float32 masters. */
  stateBytes: number;
  /**
   * Bytes read and written by one step that is ideally fused, on average over the steps: parameters, gradients and state. Divided by the memory's
   * bandwidth it bounds the time of the element-wise rules. Intermediate results of matrix products aren't in it.
   */
  trafficBytes: number;
  /** Operations of one step, on average over the steps; what bounds the rules of matrices. */
  flops: number;
}

export interface CostOptions {
  /** Of the parameters; default float32. With 16 bits there are float32 masters, which are what is stepped. */
  dtype?: "float32" | "float64" | "bfloat16" | "float16";
  /** `true`: with `maxGradNorm` or `nonFinite`, which read all gradients once more. Default `false`. */
  measuresNorm?: boolean;
}

const itemBytes = { float32: 4, float64: 8, bfloat16: 2, float16: 2 } as const;

/**
 * State, memory traffic and operations of one step of a rule for parameters of these shapes.
 *
 * @param rule - by its name as a transform: "adamw", "sonew", "shampoo", …
 * @param shapes - of all parameters that it steps
 * @param options - those of the optimizer that decide the cost, with its names and defaults, besides `dtype` and `measuresNorm`
 * @throws {OptionError} for an unknown rule, dtype, or a shape with a size that is no positive integer
 *
 * @example
 * const { stateBytes } = estimateCost("shampoo", [[4096, 1024], [1024]], { rootEvery: 20 });
 */
export function estimateCost<R extends RuleName>(
  rule: R,
  shapes: readonly (readonly number[])[],
  options: RuleCostOptions[R] & CostOptions = {} as RuleCostOptions[R],
): CostEstimate {
  checkOneOf("estimateCost", "rule", rule, Object.keys(ruleCosts));
  const { dtype = "float32", measuresNorm = false } = options as CostOptions;
  checkOneOf("estimateCost", "dtype", dtype, Object.keys(itemBytes));
  const paramBytes = itemBytes[dtype];
  const steppedBytes = Math.max(4, paramBytes);
  const masters = paramBytes < 4 ? 1 : 0;
  const sum: CostEstimate = { params: 0, stateBytes: 0, trafficBytes: 0, flops: 0 };
  for (const [i, shape] of shapes.entries()) {
    checkSizes(i, shape);
    const size = shape.reduce((n, d) => n * d, 1);
    const { state, moved, flops } = ruleCosts[rule](shape, options);
    sum.params += size;
    sum.stateBytes += steppedBytes * (state + masters * size);
    // Masters are stepped in the place of the parameters, which are written besides; narrow gradients are narrower to read.
    const narrow = masters * size * (paramBytes + paramBytes - steppedBytes);
    sum.trafficBytes += steppedBytes * moved + narrow + (measuresNorm ? paramBytes * size : 0);
    sum.flops += flops + (measuresNorm ? 2 * size : 0);
  }
  return sum;
}

function checkSizes(i: number, shape: readonly number[]): void {
  const bad = shape.find((size) => !Number.isSafeInteger(size) || size < 1);
  if (bad === undefined) return;
  throw new OptionError(`[estimateCost] shapes[${i}] must have positive integers; received ${String(bad)}.`);
}
