/** A trained model from its run or checkpoint. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Tokenizer } from "@llmeff/data";
import { Transformer } from "@llmeff/models";
import { IoError } from "@llmeff/native/errors";
import { type DeviceChoice, defaultDevice, keep, type Tensor, toDevice } from "@llmeff/tensor";
import { latestCheckpoint, loadCheckpoint } from "@llmeff/train";
import { disposeParams } from "./dispose-params.js";
import { readRunConfig, tokenizerOf } from "./run-config.js";
import { checkpointsFolder } from "./train-run.js";

export interface LoadedModel extends Disposable {
  model: Transformer;
  params: Record<string, Tensor>;
  /** Generated tasks have none. */
  tokenizer: Tokenizer | undefined;
  checkpoint: string;
}

/**
 * @param path - a checkpoint (`…/checkpoints/step-00000100`), the folder of checkpoints, or a run's folder; of several the newest valid one
 * @param device - where it is to run; default what `LLMEFF_DEVICE` says, else the CPU
 * @throws {IoError} if there is nothing of the kind; {@link FormatError} if it is damaged
 */
export async function loadModel(path: string, device?: DeviceChoice): Promise<LoadedModel> {
  const checkpoint = await findCheckpoint(path);
  const { params: loaded, optimizer, state } = await loadCheckpoint(checkpoint, { device: "cpu" });
  disposeParams(optimizer.tensors);
  const params = moved(loaded, device ?? defaultDevice());
  const config = readRunConfig(checkpoint, state.config);
  const model = new Transformer(config.model);
  return {
    model,
    params,
    tokenizer: tokenizerOf(config),
    checkpoint,
    [Symbol.dispose]() {
      disposeParams(params);
      model.dispose();
    },
  };
}

/** The parameters on the device that the model is to run on; no other copy stays. */
function moved(params: Record<string, Tensor>, device: DeviceChoice): Record<string, Tensor> {
  try {
    const there = keep(toDevice(params, device));
    for (const [name, param] of Object.entries(params)) if (there[name] !== param) param.dispose();
    return there;
  } catch (error) {
    disposeParams(params);
    throw error;
  }
}

async function findCheckpoint(path: string): Promise<string> {
  if (await exists(join(path, "state.json"))) return path;
  for (const folder of [join(path, checkpointsFolder), path]) {
    const found = await latestCheckpoint(folder);
    if (found !== undefined) return found.path;
  }
  const what = (await exists(path)) ? "holds no checkpoint" : "doesn't exist";
  throw new IoError(`[llmeff] ${path} ${what}. Name a checkpoint (…/step-00000100) or the folder of a training run.`);
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
