import { engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp, type ForwardContext } from "../autograd.js";
import { accumulationDType, type DType } from "../dtype.js";
import { scope } from "../scope.js";
import { formatShape, sameShape } from "../shape.js";
import { rememberCallSite, Tensor } from "../tensor.js";
import { checkFloating, checkIds, contiguous, leadingSize, rows } from "./arguments.js";
import { inDType } from "./cast.js";
import { detach } from "./clone.js";
import { full } from "./creation.js";
import { slice } from "./slice.js";
import { reshape } from "./views.js";

export interface CrossEntropyOptions {
  /** Target that marks a row without loss; default -100. */
  ignoreIndex?: number;
  /** Weight of the uniform distribution in the target, in [0, 1); default 0. */
  labelSmoothing?: number;
  /** Coefficient of `lse²`, which keeps logits from drifting (PaLM uses 1e-4); default 0. */
  zLoss?: number;
  /** Logits become `softcap · tanh(logits / softcap)` first; default 0, off. */
  softcap?: number;
}

/** A loss with its parts. Only `loss` carries a gradient. */
export interface CrossEntropyParts {
  /** `[]`: `ce + zLoss`. */
  loss: Tensor;
  /** `[]`: mean cross-entropy of the rows with a target, in nats. */
  ce: Tensor;
  /** `[]`: mean z-loss, coefficient included. */
  zLoss: Tensor;
  /** `[]`: number of rows with a target. */
  count: Tensor;
  /** Shape of the targets: cross-entropy of each row, 0 without a target. */
  perToken: Tensor;
}

type Settings = Required<CrossEntropyOptions>;

/** The loss `[]`, its statistics `[3]` and the cross-entropy of each row `[N]`; gradients are those of the loss alone. */
type Results = readonly [loss: Tensor, stats: Tensor, ce: Tensor];

function settingsOf(where: string, options: CrossEntropyOptions): Settings {
  const { ignoreIndex = -100, labelSmoothing = 0, zLoss = 0, softcap = 0 } = options;
  if (!Number.isInteger(ignoreIndex))
    throw new OptionError(`[${where}] ignoreIndex must be an integer; received ${ignoreIndex}.`);
  if (!(labelSmoothing >= 0 && labelSmoothing < 1)) {
    throw new OptionError(`[${where}] labelSmoothing must be in [0, 1); received ${labelSmoothing}.`);
  }
  for (const [name, value] of Object.entries({ zLoss, softcap })) {
    if (!(value >= 0 && Number.isFinite(value)))
      throw new OptionError(`[${where}] ${name} must be finite and ≥ 0; received ${value}.`);
  }
  return { ignoreIndex, labelSmoothing, zLoss, softcap };
}

/** The options in the order in which the kernels take them. */
function kernelOptions({ ignoreIndex, labelSmoothing, zLoss, softcap }: Settings) {
  return [ignoreIndex, labelSmoothing, zLoss, softcap] as const;
}

/** Memory for the loss and its parts; with no rows at all the loss is 0, as with no valid row. */
function allocateResults(dtype: DType, n: number): Results {
  const fresh = (shape: number[]) => (n === 0 ? full(shape, 0, { dtype }) : Tensor.allocate(dtype, shape));
  return [fresh([]), fresh([3]), fresh([n])];
}

const crossEntropyOp = defineOp<Settings, Results>({
  name: "crossEntropy",
  inputNames: ["logits", "targets"],
  forward(context, [logits, targets], settings) {
    const [z, ids] = [rows(logits!), contiguous(targets!)];
    const wide = accumulationDType(z.dtype);
    const results = allocateResults(wide, ids.size);
    const [loss, stats, ce] = results;
    const lse = Tensor.allocate(wide, [ids.size]);
    const { op } = engine();
    rememberCallSite(
      op.crossEntropy(
        z.handle,
        ids.handle,
        ...kernelOptions(settings),
        loss.handle,
        stats.handle,
        ce.handle,
        lse.handle,
      ),
    );
    context.save(z, ids, stats, lse);
    return results;
  },
  backward({ saved: [logits, targets, stats, lse], options: settings }, [dloss]) {
    const dlogits = Tensor.allocate(logits!.dtype, logits!.shape);
    engine().op.crossEntropyGrad(
      dloss!.handle,
      logits!.handle,
      targets!.handle,
      stats!.handle,
      lse!.handle,
      ...kernelOptions(settings),
      dlogits.handle,
    );
    return [dlogits, null];
  },
});

/** Gradients are made with the loss, for an upstream gradient of 1, so that the logits exist once and in blocks. */
const linearCrossEntropyOp = defineOp<Settings & { dtype: DType }, Results>({
  name: "linearCrossEntropy",
  inputNames: ["hidden", "weight", "targets"],
  forward(context: ForwardContext, [hidden, weight, targets], settings) {
    const [x, w, ids] = [contiguous(hidden!), contiguous(weight!), contiguous(targets!)];
    const wide = accumulationDType(x.dtype);
    const results = allocateResults(wide, ids.size);
    const [loss, stats, ce] = results;
    // Wide until they have met the upstream gradient, which may be the loss scale that keeps float16 from underflow.
    const gradient = (i: number, like: Tensor) => {
      if (!context.needs[i]) return null;
      return ids.size === 0 ? full(like.shape, 0, { dtype: wide }) : Tensor.allocate(wide, like.shape);
    };
    const dhidden = gradient(0, x);
    const dweight = gradient(1, w);
    rememberCallSite(
      engine().op.linearCrossEntropy(
        x.handle,
        w.handle,
        ids.handle,
        ...kernelOptions(settings),
        loss.handle,
        stats.handle,
        ce.handle,
        dhidden?.handle ?? null,
        dweight?.handle ?? null,
      ),
    );
    context.save(...[dhidden, dweight].filter((t) => t !== null));
    return results;
  },
  backward({ needs, saved, options: { dtype } }, [dloss]) {
    const gradients = [...saved];
    return needs.map((needed) => (needed ? inDType(gradients.shift()!.mul(dloss!), dtype) : null));
  },
});

function partsOf([loss, stats, ce]: Results, shape: readonly number[]): CrossEntropyParts {
  const at = (i: number) => detach(reshape(slice(stats, 0, i, i + 1), []));
  return { loss, ce: at(0), zLoss: at(1), count: at(2), perToken: detach(reshape(ce, shape)) };
}

function checkedLogits(where: string, logits: Tensor, targets: Tensor): [Tensor, Tensor] {
  checkFloating(where, { logits });
  checkIds(where, "targets", targets);
  if (logits.rank === 0 || !sameShape(logits.shape.slice(0, -1), targets.shape) || logits.shape.at(-1) === 0) {
    throw new ShapeError(
      `[${where}] expected logits […, V] and targets […]; received ${formatShape(logits.shape)} and ${formatShape(targets.shape)}.`,
    );
  }
  return [reshape(logits, [leadingSize(logits.shape), logits.shape.at(-1)!]), reshape(targets, [targets.size])];
}

/**
 * Mean cross-entropy of logits against token ids, in nats, over the rows that have a target (models.md §3).
 *
 * @param logits - `[…, V]`
 * @param targets - `[…]` int32; `ignoreIndex` marks rows without a target
 * @returns `[]`, float64 for float64 logits, else float32; 0 when no row has a target
 * @throws {IndexOutOfRangeError} when the values are read, if a target is outside `0..V-1`
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): Tensor {
  const settings = settingsOf("crossEntropy", options);
  return scope(() => crossEntropyOp(checkedLogits("crossEntropy", logits, targets), settings)[0]);
}

/** `crossEntropy` with its parts and the loss of each token. */
export function crossEntropyParts(
  logits: Tensor,
  targets: Tensor,
  options: CrossEntropyOptions = {},
): CrossEntropyParts {
  const settings = settingsOf("crossEntropyParts", options);
  return scope(() =>
    partsOf(crossEntropyOp(checkedLogits("crossEntropyParts", logits, targets), settings), targets.shape),
  );
}

function checkedHidden(where: string, hidden: Tensor, weight: Tensor, targets: Tensor): [Tensor, Tensor, Tensor] {
  checkFloating(where, { hidden, weight });
  checkIds(where, "targets", targets);
  const fits = hidden.rank > 0 && weight.rank === 2 && weight.size > 0 && hidden.shape.at(-1) === weight.shape[1];
  if (!fits || !sameShape(hidden.shape.slice(0, -1), targets.shape)) {
    throw new ShapeError(
      `[${where}] expected hidden […, C], weight [V, C], targets […]; received ${formatShape(hidden.shape)}, ${formatShape(weight.shape)}, ${formatShape(targets.shape)}.`,
    );
  }
  return [reshape(hidden, [leadingSize(hidden.shape), weight.shape[1]!]), weight, reshape(targets, [targets.size])];
}

/**
 * `crossEntropy(linear(hidden, weight), targets)` in blocks of rows: the logits of the whole batch never exist.
 *
 * @param hidden - `[…, C]`
 * @param weight - `[V, C]`
 * @param targets - `[…]` int32
 */
export function linearCrossEntropy(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: CrossEntropyOptions = {},
): Tensor {
  const settings = settingsOf("linearCrossEntropy", options);
  return scope(
    () =>
      linearCrossEntropyOp(checkedHidden("linearCrossEntropy", hidden, weight, targets), {
        ...settings,
        dtype: hidden.dtype,
      })[0],
  );
}

/** `linearCrossEntropy` with its parts and the loss of each token. */
export function linearCrossEntropyParts(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: CrossEntropyOptions = {},
): CrossEntropyParts {
  const settings = settingsOf("linearCrossEntropyParts", options);
  return scope(() =>
    partsOf(
      linearCrossEntropyOp(checkedHidden("linearCrossEntropyParts", hidden, weight, targets), {
        ...settings,
        dtype: hidden.dtype,
      }),
      targets.shape,
    ),
  );
}
