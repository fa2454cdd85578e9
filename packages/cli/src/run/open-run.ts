/** What a config describes, made: data, model, optimizer, and what the training loop is given of them. */
import { Transformer } from "@llmeff/models";
import type { Optimizer } from "@llmeff/optim";
import type { Tensor } from "@llmeff/tensor";
import { averagedWeights, modelStates, type TrainOptions } from "@llmeff/train";
import type { TrainingConfig } from "../config/training-schema.js";
import { buildOptimizer } from "./build-optimizer.js";
import { defined } from "./defined.js";
import { disposeParams } from "./dispose-params.js";
import { routerState, runObjective } from "./objective.js";
import { type OpenedData, openData } from "./open-data.js";
import { peakFlopsOf } from "./peak-flops.js";
import { modelConfig } from "./run-config.js";

export interface OpenedRun extends Disposable {
  data: OpenedData;
  model: Transformer;
  params: Record<string, Tensor>;
  /** What is evaluated: the parameters or their average, with what no gradient changes. */
  evaluated: Readonly<Record<string, Tensor>>;
  /** Bytes of the parameters, and of what else of the model a step changes. */
  modelBytes: number;
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
    | "lossScale"
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
  const routers = routerState(model, { rate: training.routerBiasRate, device });
  const averaged =
    training.averageDecay === undefined ? undefined : averagedWeights(params, { decay: training.averageDecay });
  const states = [routers, averaged].filter((state) => state !== undefined);
  const optimizer = buildOptimizer(params, config.optimizer, training.steps, model.learningRateScales());
  const flopsPerToken = model.flopsPerToken(data.seqLen).total;
  const peakFlops = training.peakFlops ?? peakFlopsOf(Object.values(params)[0]!);
  return {
    ...{ data, model, params, optimizer, flopsPerToken, peakFlops },
    evaluated: { ...(averaged?.average ?? params), ...routers?.tensors },
    modelBytes: bytesOf({ ...params, ...modelStates(...states).tensors }),
    loop: {
      ...{ params, optimizer, seed, data: data.train, objective: runObjective(model, config, routers?.tensors) },
      ...{ gradientAccumulation: training.gradientAccumulation ?? 1, captureStep: training.captureStep ?? false },
      ...(training.lossScale && { lossScale: defined(training.lossScale) }),
      ...(states.length > 0 && { modelState: modelStates(...states) }),
      ...(peakFlops !== undefined && { utilization: { flopsPerToken, peakFlops } }),
    },
    [Symbol.dispose]() {
      optimizer.dispose();
      disposeParams({ ...params, ...routers?.tensors });
      averaged?.[Symbol.dispose]();
      model.dispose();
    },
  };
}

function bytesOf(tensors: Readonly<Record<string, Tensor>>): number {
  const sizes = { float64: 8, float32: 4, int32: 4, bfloat16: 2, float16: 2, uint8: 1, bool: 1 };
  return Object.values(tensors).reduce((bytes, { size, dtype }) => bytes + size * sizes[dtype], 0);
}
