/** A trained model from its run or checkpoint. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Tokenizer } from "@llmeff/data";
import { Transformer } from "@llmeff/models";
import { IoError } from "@llmeff/native/errors";
import type { Tensor } from "@llmeff/tensor";
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
 * @throws {IoError} if there is nothing of the kind; {@link FormatError} if it is damaged
 */
export async function loadModel(path: string): Promise<LoadedModel> {
  const checkpoint = await findCheckpoint(path);
  const { params, optimizer, state } = await loadCheckpoint(checkpoint);
  disposeParams(optimizer.tensors);
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
