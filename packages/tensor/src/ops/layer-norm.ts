import { engine, OptionError, ShapeError } from "@llmeff/native";
import { type BackwardContext, defineOp, type ForwardContext } from "../autograd.js";
import { accumulationDType } from "../dtype.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, contiguous, rows } from "./arguments.js";
import { checkResidual } from "./rms-norm.js";

/** Which of the parameters follow the other inputs. */
interface Settings {
  eps: number;
  weight: boolean;
  bias: boolean;
}

/** The norm of `x`, or of `x + residual`, which is written to `sum`. */
function compute(
  context: ForwardContext,
  x: Tensor,
  addition: { residual: Tensor; sum: Tensor } | undefined,
  parameters: readonly Tensor[],
  settings: Settings,
): Tensor {
  const y = Tensor.allocate(x.dtype, x.shape);
  const statistic = () =>
    context.recording ? Tensor.allocate(accumulationDType(x.dtype), x.shape.slice(0, -1)) : undefined;
  const [mean, rstd, input] = [statistic(), statistic(), rows(x)];
  const [residual, sum] = addition ? [rows(addition.residual), addition.sum] : [];
  const weight = settings.weight ? contiguous(parameters[0]!) : undefined;
  const bias = settings.bias ? contiguous(parameters.at(-1)!) : undefined;
  engine().op.layerNorm(
    input.handle,
    residual?.handle ?? null,
    weight?.handle ?? null,
    bias?.handle ?? null,
    settings.eps,
    sum?.handle ?? null,
    y.handle,
    mean?.handle ?? null,
    rstd?.handle ?? null,
  );
  if (mean && rstd) context.save(sum ?? input, mean, rstd, ...(weight ? [weight] : []));
  return y;
}

/** Of x (and of the residual), then of the parameters that there are. */
function gradients({ saved, options }: BackwardContext<Settings>, dy: Tensor, dsum: Tensor | null): Tensor[] {
  const [x, mean, rstd, weight] = saved as [Tensor, Tensor, Tensor, Tensor?];
  const dx = Tensor.allocate(dy.dtype, x.shape);
  const parameter = (present: boolean) => (present ? [Tensor.allocate(dy.dtype, x.shape.slice(-1))] : []);
  const [dweight, dbias] = [parameter(options.weight), parameter(options.bias)];
  engine().op.layerNormGrad(
    rows(dy).handle,
    dsum && rows(dsum).handle,
    x.handle,
    weight?.handle ?? null,
    mean.handle,
    rstd.handle,
    dx.handle,
    dweight[0]?.handle ?? null,
    dbias[0]?.handle ?? null,
  );
  return [dx, ...dweight, ...dbias];
}

const layerNormOp = defineOp<Settings>({
  name: "layerNorm",
  forward: (context, [x, ...parameters], settings) => compute(context, x!, undefined, parameters, settings),
  backward: (context, dy) => gradients(context, dy, null),
});

const addLayerNormOp = defineOp<Settings, readonly [sum: Tensor, y: Tensor]>({
  name: "addLayerNorm",
  forward(context, [x, residual, ...parameters], settings) {
    const sum = Tensor.allocate(x!.dtype, x!.shape);
    return [sum, compute(context, x!, { residual: residual!, sum }, parameters, settings)];
  },
  backward(context, [dsum, dy]) {
    if (dy === null) return context.shapes.map((_, i) => (i < 2 ? dsum : null));
    const [dx, ...dparameters] = gradients(context, dy, dsum);
    return [dx!, dx!, ...dparameters];
  },
});

export interface LayerNormOptions {
  /** Added to the variance; default 1e-5. */
  eps?: number;
}

interface Arguments {
  x: Tensor;
  residual?: Tensor;
  weight?: Tensor | undefined;
  bias?: Tensor | undefined;
}

function check(where: string, { weight, bias, ...others }: Arguments, { eps = 1e-5 }: LayerNormOptions) {
  const parameters = { ...(weight && { weight }), ...(bias && { bias }) };
  const { x } = others;
  checkFloating(where, { ...others, ...parameters });
  for (const [name, parameter] of Object.entries(parameters)) {
    if (x.rank > 0 && parameter.rank === 1 && parameter.size === x.shape.at(-1)) continue;
    throw new ShapeError(
      `[${where}] expected x […, C] and ${name} [C]; received ${formatShape(x.shape)} and ${formatShape(parameter.shape)}.`,
    );
  }
  if (x.rank === 0) throw new ShapeError(`[${where}] expected x […, C]; received a scalar.`);
  if (!(eps >= 0)) throw new OptionError(`[${where}] eps must be ≥ 0; received ${eps}.`);
  return {
    parameters: Object.values(parameters),
    settings: { eps, weight: weight !== undefined, bias: bias !== undefined },
  };
}

/**
 * Layer norm over the last axis, `y = (x − mean) / √(variance + eps) ∘ weight + bias`, with the biased variance (Ba et al. 2016).
 *
 * @param x - `[…, C]`
 * @param weight - `[C]`; default ones
 * @param bias - `[C]`; default zeros
 */
export function layerNorm(x: Tensor, weight?: Tensor, bias?: Tensor, options: LayerNormOptions = {}): Tensor {
  const { parameters, settings } = check("layerNorm", { x, weight, bias }, options);
  return layerNormOp([x, ...parameters], settings);
}

/**
 * `sum = x + residual` and `y = layerNorm(sum)` in one pass over memory; so are their gradients.
 *
 * @param x - `[…, C]`
 * @param residual - the shape of `x`
 * @param weight - `[C]`; default ones
 * @param bias - `[C]`; default zeros
 * @returns `[sum, y]`
 */
export function addLayerNorm(
  x: Tensor,
  residual: Tensor,
  weight?: Tensor,
  bias?: Tensor,
  options: LayerNormOptions = {},
): readonly [sum: Tensor, y: Tensor] {
  const { parameters, settings } = check("addLayerNorm", { x, residual, weight, bias }, options);
  checkResidual("addLayerNorm", x, residual);
  return addLayerNormOp([x, residual, ...parameters], settings);
}
