/** The loss of a run, with what its mixtures of experts need from step to step: the keys of their jitter, and the loads that their biases balance. */
import { streamNumberOf } from "@llmeff/data";
import type { LossOptions, TokenBatch, Transformer } from "@llmeff/models";
import { copyInto, type DeviceChoice, type RandomKey, type Tensor } from "@llmeff/tensor";
import type { ModelState, Objective, ObjectiveContext, TrainBatch } from "@llmeff/train";
import type { TrainingConfig } from "../config/training-schema.js";
import { defined } from "./defined.js";
import { disposeParams } from "./dispose-params.js";

/** @param state - of the model's routers, if they have biases */
export function runObjective(
  model: Transformer,
  { training: { zLoss, labelSmoothing, recompute } }: Pick<TrainingConfig, "training">,
  state: Readonly<Record<string, Tensor>> | undefined,
): Objective {
  const { experts } = model.config;
  const options: LossOptions = defined({ zLoss, labelSmoothing, recompute });
  if (experts === undefined && Object.keys(options).length === 0)
    return (params, batch) => model.loss(params, tokenBatch(model, batch));
  return (params, batch, context) => {
    const { loss, routers } = model.lossParts(params, tokenBatch(model, batch), {
      ...options,
      ...(state && { state: { ...state } }),
      ...(experts !== undefined && experts.jitter > 0 && { jitterKey: jitterKeys(context) }),
    });
    if (state !== undefined) for (const [layer, { load }] of Object.entries(routers)) context.collect(layer, load);
    return loss;
  };
}

/** A batch with the masks of its rows, where it has some. */
export function tokenBatch(model: Transformer, { tokens, targets, extras }: TrainBatch): TokenBatch {
  const { documents, prefix, positions } = extras;
  const placed = model.config.positions === "learned";
  return { tokens, targets, ...defined({ documents, prefix, positions: placed ? positions : undefined }) };
}

/** Keys that no other use of the run's seed has. */
function jitterKeys({ seed, microBatch, byStep }: ObjectiveContext): (layer: number) => RandomKey {
  return (layer) => ({
    seed,
    stream: byStep((step) => streamNumberOf(`router-jitter/${layer}/${microBatch}`, step)),
  });
}

/** The biases of a model's routers, which each step balances by its loads; undefined for a model without. */
export function routerState(
  model: Transformer,
  { rate, device }: { rate: number | undefined; device: DeviceChoice | undefined },
): ModelState | undefined {
  if (!model.config.experts?.routerBias) return undefined;
  const tensors = model.initState({ device });
  return {
    tensors,
    update(loads) {
      const routers = Object.entries(loads).map(([layer, load]) => [layer, { load }] as const);
      const next = model.nextState(tensors, Object.fromEntries(routers), rate);
      for (const [name, bias] of Object.entries(next)) copyInto(tensors[name]!, bias);
      disposeParams(next);
    },
  };
}
