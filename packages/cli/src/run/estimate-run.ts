/** What a run will take in memory and time, from a few of its steps: nothing is written. */
import { memory, resetPeakMemory, sync, type Tensor } from "@llmeff/tensor";
import { train } from "@llmeff/train";
import type { TrainingConfig } from "../config/training-schema.js";
import { openRun } from "./open-run.js";

/** Steps that are made; the first, in which memory is found, isn't timed. */
const trialSteps = 4;

export interface RunEstimate {
  parameters: number;
  /** Those that a token meets: fewer in mixtures of experts. */
  activeParameters: number;
  flopsPerToken: number;
  tokensPerStep: number;
  /** Of all parameters, whether a token meets them or not, and of their average. */
  parameterBytes: number;
  optimizerBytes: number;
  /** At the most during a step: gradients and activations too. */
  peakBytes: number;
  device: string;
  /** The fastest of the steps. */
  secondsPerStep: number;
  /** Of all steps, without evaluations and checkpoints. */
  seconds: number;
  /** Operations that the device can do in a second, if anybody has said. */
  peakFlops: number | undefined;
}

/** @throws what the run would, such as an OutOfMemoryError of the device */
export async function estimateRun(
  config: TrainingConfig,
  { configFile, signal }: { configFile: string; signal: AbortSignal },
): Promise<RunEstimate> {
  const { steps } = config.training;
  await using run = await openRun(config, { configFile, evaluateWindows: 1, signal });
  const { model, params, modelBytes: parameterBytes, optimizer, flopsPerToken, peakFlops, data } = run;
  const [{ device }] = Object.values(params) as [Tensor];
  await sync();
  // What lives beside the run: neither its parameters nor the optimizer's state, which is there before the first step.
  const others = memory(device).liveBytes - parameterBytes - optimizer.stateBytes();
  resetPeakMemory(device);
  const times: number[] = [];
  let before = 0;
  const trial = { steps: Math.min(steps, trialSteps), signal };
  for await (const event of train({ ...run.loop, ...trial })) {
    if (event.type !== "step") continue;
    times.push(event.seconds - before);
    before = event.seconds;
  }
  const secondsPerStep = Math.min(...(times.length > 1 ? times.slice(1) : times));
  return {
    ...{ parameters: model.parameterCount, activeParameters: model.activeParameterCount, flopsPerToken, peakFlops },
    tokensPerStep: (config.training.gradientAccumulation ?? 1) * config.data.batchSize * data.seqLen,
    ...{ parameterBytes, optimizerBytes: optimizer.stateBytes(), device },
    peakBytes: memory(device).peakBytes - others,
    ...{ secondsPerStep, seconds: secondsPerStep * steps },
  };
}
