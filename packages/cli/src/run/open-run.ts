/** What a config describes, made: data, model, optimizer, and what the training loop is given of them. */
import { Transformer } from "@llmeff/models";
import type { Optimizer } from "@llmeff/optim";
import type { Tensor } from "@llmeff/tensor";
import type { TrainOptions } from "@llmeff/train";
import type { TrainingConfig } from "../config/training-schema.js";
import { buildOptimizer } from "./build-optimizer.js";
import { disposeParams } from "./dispose-params.js";
import { routerState, runObjective } from "./objective.js";
import { type OpenedData, openData } from "./open-data.js";
import { peakFlopsOf } from "./peak-flops.js";
import { modelConfig } from "./run-config.js";

export interface OpenedRun extends Disposable {
  data: OpenedData;
  model: Transformer;
  params: Record<string, Tensor>;
  /** Tensors that no gradient changes: the biases of routers. */
  state: Record<string, Tensor>;
  optimizer: Optimizer;
  /** Operations of a step per token. */
  flopsPerToken: number;
  /** Operations that the device can do in a second, if anybody has said. */
  peakFlops: number | undefined;
  /** Options of the training loop that the config decides, but for lengths and files. */
  loop: Pick<
    TrainOptions,
    | "params"
    | "optimizer"
    | "objective"
    | "data"
    | "gradientAccumulation"
    | "captureStep"
    | "seed"
    | "modelState"
    | "utilization"
  >;
}

/** @param options.configFile - paths in the config are relative to it */
export async function openRun(
  config: TrainingConfig,
  options: { configFile: string; evaluateWindows: number },
): Promise<OpenedRun> {
  const { seed = 0, device, dtype, training } = config;
  const data = await openData(config.data, { ...options, seed });
  const model = new Transformer(modelConfig(config, data.vocabSize));
  const params = model.init(seed, { device, dtype });
  const modelState = routerState(model, { rate: training.routerBiasRate, device });
  const state = modelState?.tensors ?? {};
  const optimizer = buildOptimizer(params, config.optimizer, training.steps, model.learningRateScales());
  const flopsPerToken = model.flopsPerToken(data.seqLen).total;
  const peakFlops = training.peakFlops ?? peakFlopsOf(Object.values(params)[0]!);
  return {
    ...{ data, model, params, state, optimizer, flopsPerToken, peakFlops },
    loop: {
      ...{ params, optimizer, seed, data: data.train, objective: runObjective(model, config, modelState?.tensors) },
      ...{ gradientAccumulation: training.gradientAccumulation ?? 1, captureStep: training.captureStep ?? false },
      ...(modelState && { modelState }),
      ...(peakFlops !== undefined && { utilization: { flopsPerToken, peakFlops } }),
    },
    [Symbol.dispose]() {
      optimizer.dispose();
      disposeParams({ ...params, ...state });
      model.dispose();
    },
  };
}
