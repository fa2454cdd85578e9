import { engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { scope } from "../scope.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, checkPositions, contiguous } from "./arguments.js";
import { reshape } from "./views.js";
import { inWidth, type Pair, pairOf, positionsOf } from "./windows.js";

interface Settings {
  where: string;
  outShape: readonly number[];
  /** Window, steps and padding in the order in which the kernels take them. */
  geometry: readonly [number, number, number, number, number, number];
}

const maxPool2dOp = defineOp<Settings>({
  name: "maxPool2d",
  forward(context, [x], { where, outShape, geometry }) {
    checkPositions(where, "an image", x!.shape[2]! * x!.shape[3]!);
    const out = Tensor.allocate(x!.dtype, outShape);
    const indices = Tensor.allocate("int32", outShape);
    engine().op.maxPool2d(contiguous(x!).handle, ...geometry, out.handle, indices.handle);
    context.save(indices);
    return out;
  },
  backward({ saved: [indices], shapes: [shape] }, dout) {
    const dx = Tensor.allocate(dout.dtype, shape!);
    engine().op.maxPool2dGrad(contiguous(dout).handle, indices!.handle, dx.handle);
    return [dx];
  },
});

const avgPool2dOp = defineOp<Settings>({
  name: "avgPool2d",
  forward(_context, [x], { outShape, geometry }) {
    const out = Tensor.allocate(x!.dtype, outShape);
    engine().op.avgPool2d(contiguous(x!).handle, ...geometry, out.handle);
    return out;
  },
  backward({ shapes: [shape], options: { geometry } }, dout) {
    const dx = Tensor.allocate(dout.dtype, shape!);
    engine().op.avgPool2dGrad(contiguous(dout).handle, ...geometry, dx.handle);
    return [dx];
  },
});

export interface Pool2dOptions {
  /** Distance between windows; default the window itself. */
  stride?: Pair;
  /** How far windows may reach over either end of an axis, at most half a window; default 0. */
  padding?: Pair;
}

function settingsOf(where: string, x: Tensor, window: Pair, { stride = window, padding = 0 }: Pool2dOptions): Settings {
  checkFloating(where, { x });
  if (x.rank !== 4) throw new ShapeError(`[${where}] x must be [B, C, H, W]; received ${formatShape(x.shape)}.`);
  const kernel = pairOf(where, "window", window, 1);
  const steps = pairOf(where, "stride", stride, 1);
  const pad = pairOf(where, "padding", padding, 0);
  if (pad.some((n, i) => 2 * n > kernel[i]!)) {
    throw new OptionError(
      `[${where}] padding must be at most half the window, lest a window hold nothing; received ${formatShape(pad)} for ${formatShape(kernel)}.`,
    );
  }
  const sizes = kernel.map((n, i) => positionsOf(where, x.shape[2 + i]!, n, steps[i]!, pad[i]!));
  return { where, outShape: [x.shape[0]!, x.shape[1]!, ...sizes], geometry: [...kernel, ...steps, ...pad] };
}

/**
 * The largest element of every window; NaN if there is one. The first of equals gets the gradient.
 *
 * @param x - `[B, C, H, W]`
 * @param window - its height and width
 * @returns `[B, C, OH, OW]` with `OH = ⌊(H + 2·padding − window) / stride⌋ + 1`
 */
export function maxPool2d(x: Tensor, window: Pair, options: Pool2dOptions = {}): Tensor {
  return maxPool2dOp([x], settingsOf("maxPool2d", x, window, options));
}

/**
 * The mean of every window, over the elements that it has: padding isn't counted. (The mean of the whole image is `mean` over both axes.)
 *
 * @param x - `[B, C, H, W]`
 * @param window - its height and width
 * @returns `[B, C, OH, OW]` with `OH = ⌊(H + 2·padding − window) / stride⌋ + 1`
 */
export function avgPool2d(x: Tensor, window: Pair, options: Pool2dOptions = {}): Tensor {
  return avgPool2dOp([x], settingsOf("avgPool2d", x, window, options));
}

export interface Pool1dOptions {
  /** Distance between windows; default the window itself. */
  stride?: number;
  /** How far windows may reach over either end, at most half a window; default 0. */
  padding?: number;
}

/** A pooling of `[B, C, T]` by one of `[B, C, 1, T]`. */
function inOneDimension(
  where: string,
  pool: typeof maxPool2dOp,
  x: Tensor,
  window: number,
  { stride = window, padding = 0 }: Pool1dOptions,
): Tensor {
  checkFloating(where, { x });
  if (x.rank !== 3) throw new ShapeError(`[${where}] x must be [B, C, T]; received ${formatShape(x.shape)}.`);
  const [B, C, T] = x.shape as [number, number, number];
  const options: Pool2dOptions = {
    stride: inWidth(where, "stride", stride, 1, 1),
    padding: inWidth(where, "padding", padding, 0, 0),
  };
  const kernel = inWidth(where, "window", window, 1, 1);
  return scope(() => {
    const flat = reshape(x, [B, C, 1, T]);
    const out = pool([flat], settingsOf(where, flat, kernel, options));
    return reshape(out, [B, C, out.shape[3]!]);
  });
}

/** `maxPool2d` along one axis: `[B, C, T]` → `[B, C, OT]`. */
export function maxPool1d(x: Tensor, window: number, options: Pool1dOptions = {}): Tensor {
  return inOneDimension("maxPool1d", maxPool2dOp, x, window, options);
}

/** `avgPool2d` along one axis: `[B, C, T]` → `[B, C, OT]`. */
export function avgPool1d(x: Tensor, window: number, options: Pool1dOptions = {}): Tensor {
  return inOneDimension("avgPool1d", avgPool2dOp, x, window, options);
}
