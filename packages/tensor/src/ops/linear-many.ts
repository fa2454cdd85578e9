import { engine, OptionError, ShapeError } from "@llmeff/native";
import { commonDevice, onDevice } from "../device.js";
import { accumulationDType } from "../dtype.js";
import { scope } from "../scope.js";
import { formatShape, sameShape } from "../shape.js";
import { currentTape } from "../tape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, contiguous, leadingSize, rows } from "./arguments.js";
import { add } from "./binary.js";
import { concat } from "./concat.js";
import { linear } from "./linear.js";
import { type RmsNormOptions, rmsNorm, settingsOf } from "./rms-norm.js";
import { split } from "./slice.js";

/** Rows from which on copying the weights to one place costs less than the products gain. With few, reading them is all the work. */
const manyRows = 256;

/** Whether products of `x` with these weights may be one call of the engine with `others` along: without a gradient, of few rows. @internal */
export function areFew(where: string, x: Tensor, weights: readonly Tensor[], others: readonly Tensor[] = []): boolean {
  const few =
    x.rank > 1 && leadingSize(x.shape) < manyRows && weights.length <= 8 && weights.every(({ size }) => size > 0);
  return few && x.size > 0 && currentTape()?.needsOf(where, [x, ...weights, ...others]) === undefined;
}

/** Whether the CPU would make 16-bit weights wide: it multiplies them as they are, but takes nothing else along. @internal */
export function widens({ device, dtype }: Tensor): boolean {
  return device === "cpu" && accumulationDType(dtype) !== dtype;
}

/** An RMS norm, as `rmsNorm` takes it. */
export interface RmsNormOfInput extends RmsNormOptions {
  /** `[I]` */
  weight: Tensor;
}

export interface LinearManyOptions {
  /** The layers are of `rmsNorm(x, norm.weight, norm)`. Of few rows without a gradient that costs no pass of its own. */
  norm?: RmsNormOfInput | undefined;
}

/** The arguments of the engine for a norm. @internal */
export function normArguments(
  where: string,
  x: Tensor,
  norm: RmsNormOfInput | undefined,
): readonly [norm: number | null, weightOffset: number, eps: number] {
  if (norm === undefined) return [null, 0, 0];
  checkFloating(where, { x, norm: norm.weight });
  const { eps, weightOffset } = settingsOf(where, x, norm.weight, norm);
  return [contiguous(norm.weight).handle, weightOffset, eps];
}

/** The products into one array, without a gradient and without copying the weights. */
function products(x: Tensor, weights: readonly Tensor[], norm: RmsNormOfInput | undefined): Tensor {
  const sizes = weights.reduce((sum, weight) => sum + weight.shape[0]!, 0);
  return onDevice(commonDevice("linearMany", [x, ...weights]), () => {
    const out = Tensor.allocate(x.dtype, x.shape.with(-1, sizes));
    const handles = weights.map((weight) => rows(weight).handle);
    engine().op.linearMany(rows(x).handle, ...normArguments("linearMany", x, norm), handles, out.handle);
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
 * @param options.norm - the layers are of the RMS norm of `x`
 * @returns `[…, Oᵢ]` for each
 * @throws {ShapeError} if the sizes don't fit
 *
 * @example
 * const [gate, up] = linearMany(x, [gateWeight, upWeight]);
 * const hidden = swiglu(gate, up);
 */
export function linearMany<W extends readonly Tensor[]>(
  x: Tensor,
  weights: W,
  { norm }: LinearManyOptions = {},
): { [K in keyof W]: Tensor } {
  if (weights.length === 0) throw new OptionError("[linearMany] expected at least one weight; received none.");
  for (const [i, weight] of weights.entries()) {
    checkFloating("linearMany", { x, [`weights[${i}]`]: weight });
    if (weight.rank !== 2 || x.rank === 0 || x.shape.at(-1) !== weight.shape[1]) {
      throw new ShapeError(
        `[linearMany] expected x […, I] and weights[${i}] [O, I]; received ${formatShape(x.shape)} and ${formatShape(weight.shape)}.`,
      );
    }
  }
  const few = areFew("linearMany", x, weights, norm && [norm.weight]) && (norm === undefined || !widens(x));
  if (norm !== undefined && !few) return scope(() => linearMany(rmsNorm(x, norm.weight, norm), weights));
  const together = leadingSize(x.shape) >= manyRows && weights.length > 1;
  const results =
    few || together
      ? scope(() => {
          const sizes = weights.map((weight) => weight.shape[0]!);
          return split(few ? products(x, weights, norm) : linear(x, concat(weights)), sizes, -1);
        })
      : weights.map((weight) => linear(x, weight));
  return results as { [K in keyof W]: Tensor };
}

/**
 * A fully connected layer added to a residual stream, `residual + x · weightᵀ`: of few rows without a gradient in one pass.
 *
 * @param residual - `[…, O]`
 * @param x - `[…, I]`
 * @param weight - `[O, I]`
 * @returns `[…, O]`
 * @throws {ShapeError} if the sizes don't fit
 */
export function linearAdd(residual: Tensor, x: Tensor, weight: Tensor): Tensor {
  const where = "linearAdd";
  checkFloating(where, { residual, x, weight });
  const fits = weight.rank === 2 && x.rank > 0 && x.shape.at(-1) === weight.shape[1];
  if (!fits || !sameShape(residual.shape, x.shape.with(-1, weight.shape[0]!))) {
    throw new ShapeError(
      `[${where}] expected residual […, O], x […, I] and weight [O, I]; received ${formatShape(residual.shape)}, ${formatShape(x.shape)} and ${formatShape(weight.shape)}.`,
    );
  }
  if (widens(x) || !areFew(where, x, [weight], [residual])) return scope(() => add(residual, linear(x, weight)));
  return onDevice(x.deviceNumber, () =>
    scope(() => {
      const out = Tensor.allocate(x.dtype, residual.shape);
      engine().op.linearAdd(rows(x).handle, rows(weight).handle, rows(residual).handle, out.handle);
      return out;
    }),
  );
}
