import { engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { scope } from "../scope.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, contiguous } from "./arguments.js";
import { reshape } from "./views.js";
import { inWidth, type Pair, pairOf, positionsOf } from "./windows.js";

/** Steps, padding, dilation and groups in the order in which the kernels take them. */
type Geometry = readonly [number, number, number, number, number, number, number];

interface Settings {
  outShape: readonly number[];
  geometry: Geometry;
}

const conv2dOp = defineOp<Settings>({
  name: "conv2d",
  forward(context, inputs, { outShape, geometry }) {
    const [x, weight, bias] = inputs.map(contiguous) as [Tensor, Tensor, Tensor?];
    const out = Tensor.allocate(x.dtype, outShape);
    engine().op.conv2d(x.handle, weight.handle, bias?.handle ?? null, ...geometry, out.handle);
    context.save(x, weight);
    return out;
  },
  backward({ needs, saved: [x, weight], shapes, options: { geometry } }, dout) {
    const grads = shapes.map((shape, i) => (needs[i] ? Tensor.allocate(dout.dtype, shape) : null));
    const [dx, dweight, dbias] = grads.map((grad) => grad?.handle ?? null);
    const upstream = contiguous(dout).handle;
    engine().op.conv2dGrad(upstream, x!.handle, weight!.handle, ...geometry, dx!, dweight!, dbias ?? null);
    return grads;
  },
});

export interface Conv2dOptions {
  /** Distance between windows; default 1. */
  stride?: Pair;
  /** Zeros on either end of an axis, default 0 ("valid"); "same" keeps the size, for strides of 1 and odd windows. */
  padding?: Pair | "same" | "valid";
  /** Distance between the elements of a window; default 1. */
  dilation?: Pair;
  /** Channels are cut into so many groups that don't mix; `C` makes it depthwise. Default 1. */
  groups?: number;
}

function samePadding(where: string, extents: readonly number[], stride: readonly number[]): [number, number] {
  if (stride.some((n) => n !== 1)) {
    throw new OptionError(`[${where}] padding "same" needs a stride of 1; received ${formatShape(stride)}.`);
  }
  if (extents.some((n) => n % 2 === 0)) {
    throw new OptionError(
      `[${where}] padding "same" needs windows of odd length, dilation included; received ${formatShape(extents)}. Pad the input with pad().`,
    );
  }
  return extents.map((n) => (n - 1) / 2) as [number, number];
}

function checkChannels(where: string, x: Tensor, weight: Tensor, groups = 1, bias?: Tensor): void {
  if (!Number.isSafeInteger(groups) || groups < 1) {
    throw new OptionError(`[${where}] groups must be an integer ≥ 1; received ${groups}.`);
  }
  const shapes = `x is ${formatShape(x.shape)} and weight is ${formatShape(weight.shape)}`;
  if (weight.shape.slice(1).includes(0)) {
    throw new ShapeError(`[${where}] expected weights of at least one channel and element; ${shapes}.`);
  }
  const [out, perGroup] = weight.shape as [number, number];
  if (x.shape[1] !== perGroup * groups || out % groups !== 0) {
    throw new ShapeError(
      `[${where}] with ${groups} groups expected weight [O, C / groups, …] and O a multiple of them; ${shapes}.`,
    );
  }
  if (bias && (bias.rank !== 1 || bias.size !== out)) {
    throw new ShapeError(`[${where}] bias must be [${out}]; received ${formatShape(bias.shape)}.`);
  }
}

/** `conv2d` of channels that fit; other mistakes are reported in the name of `where`. */
function convolve(where: string, x: Tensor, weight: Tensor, bias: Tensor | undefined, options: Conv2dOptions): Tensor {
  const { padding = 0, groups = 1 } = options;
  const stride = pairOf(where, "stride", options.stride ?? 1, 1);
  const dilation = pairOf(where, "dilation", options.dilation ?? 1, 1);
  const extents = dilation.map((step, i) => step * (weight.shape[2 + i]! - 1) + 1);
  const pad =
    padding === "same"
      ? samePadding(where, extents, stride)
      : pairOf(where, "padding", padding === "valid" ? 0 : padding, 0);
  const sizes = extents.map((extent, i) => positionsOf(where, x.shape[2 + i]!, extent, stride[i]!, pad[i]!));
  return conv2dOp(bias ? [x, weight, bias] : [x, weight], {
    outShape: [x.shape[0]!, weight.shape[0]!, ...sizes],
    geometry: [...stride, ...pad, ...dilation, groups],
  });
}

/**
 * 2-d convolution (cross-correlation, as in every deep-learning library),
 * `out[b, o, i, j] = bias[o] + Σ_{c, r, s} weight[o, c, r, s] · x[b, c, i·stride + r·dilation − padding, j·stride + s·dilation − padding]`.
 *
 * @param x - `[B, C, H, W]`
 * @param weight - `[O, C / groups, R, S]`
 * @param bias - `[O]`
 * @returns `[B, O, OH, OW]` with `OH = ⌊(H + 2·padding − dilation·(R − 1) − 1) / stride⌋ + 1`
 * @throws {ShapeError} if the channels don't fit or the window is larger than the padded image
 *
 * @example
 * const features = relu(conv2d(images, weight, bias, { padding: "same" }));
 */
export function conv2d(x: Tensor, weight: Tensor, bias?: Tensor, options: Conv2dOptions = {}): Tensor {
  checkFloating("conv2d", { x, weight, ...(bias && { bias }) });
  if (x.rank !== 4 || weight.rank !== 4) {
    throw new ShapeError(
      `[conv2d] expected x [B, C, H, W] and weight [O, C / groups, R, S]; received ${formatShape(x.shape)} and ${formatShape(weight.shape)}.`,
    );
  }
  checkChannels("conv2d", x, weight, options.groups, bias);
  return convolve("conv2d", x, weight, bias, options);
}

export interface Conv1dOptions {
  /** Distance between windows; default 1. */
  stride?: number;
  /** Zeros on either end, default 0 ("valid"); "same" keeps the length, for a stride of 1 and odd windows. */
  padding?: number | "same" | "valid";
  /** Distance between the elements of a window; default 1. */
  dilation?: number;
  /** Channels are cut into so many groups that don't mix; `C` makes it depthwise. Default 1. */
  groups?: number;
}

/**
 * 1-d convolution: `conv2d` of height 1.
 *
 * @param x - `[B, C, T]`
 * @param weight - `[O, C / groups, S]`
 * @param bias - `[O]`
 * @returns `[B, O, OT]`
 */
export function conv1d(x: Tensor, weight: Tensor, bias?: Tensor, options: Conv1dOptions = {}): Tensor {
  const { stride = 1, padding = 0, dilation = 1, groups = 1 } = options;
  checkFloating("conv1d", { x, weight, ...(bias && { bias }) });
  if (x.rank !== 3 || weight.rank !== 3) {
    throw new ShapeError(
      `[conv1d] expected x [B, C, T] and weight [O, C / groups, S]; received ${formatShape(x.shape)} and ${formatShape(weight.shape)}.`,
    );
  }
  checkChannels("conv1d", x, weight, groups, bias);
  const settings: Conv2dOptions = {
    stride: inWidth("conv1d", "stride", stride, 1, 1),
    padding: typeof padding === "string" ? padding : inWidth("conv1d", "padding", padding, 0, 0),
    dilation: inWidth("conv1d", "dilation", dilation, 1, 1),
    groups,
  };
  const [B, C, T] = x.shape as [number, number, number];
  const [O, perGroup, S] = weight.shape as [number, number, number];
  return scope(() => {
    const flat = reshape(weight, [O, perGroup, 1, S]);
    const out = convolve("conv1d", reshape(x, [B, C, 1, T]), flat, bias, settings);
    return reshape(out, [B, O, out.shape[3]!]);
  });
}
