/** A trained model from its run or checkpoint. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { loadHuggingFaceTokenizer, type Tokenizer } from "@llmeff/data";
import { type JsonObject, loadHuggingFace, Transformer } from "@llmeff/models";
import { IoError } from "@llmeff/native/errors";
import { type DeviceChoice, defaultDevice, keep, scope, type Tensor, toDevice } from "@llmeff/tensor";
import { latestCheckpoint, loadCheckpoint, splitAverages } from "@llmeff/train";
import { isObject } from "../config/merge.js";
import { disposeParams } from "./dispose-params.js";
import { readRunConfig, tokenizerOf } from "./run-config.js";
import { checkpointsFolder } from "./train-run.js";

export interface LoadedModel extends Disposable {
  model: Transformer;
  params: Record<string, Tensor>;
  /** Generated tasks have none, nor has a folder without `tokenizer.json`, or one whose tokenizer wasn't asked for. */
  tokenizer: Tokenizer | undefined;
  /** Tokens that end a text. */
  stopTokens: readonly number[];
  /** The checkpoint or folder that it was read from. */
  checkpoint: string;
  /** The config.json of a Hugging Face folder. */
  source?: JsonObject;
}

export interface LoadModelOptions {
  /** Where it is to run; default what `LLMEFF_DEVICE` says, else the CPU. */
  device?: DeviceChoice | undefined;
  /** Whether a folder's `tokenizer.json` is read, which may be of a kind that can only be copied; default true. */
  tokenizer?: boolean;
}

/** What `loaded` holds, with the way to give it back. */
function disposable(loaded: Omit<LoadedModel, typeof Symbol.dispose>): LoadedModel {
  return {
    ...loaded,
    [Symbol.dispose]() {
      disposeParams(loaded.params);
      loaded.model.dispose();
    },
  };
}

/**
 * @param path - a checkpoint (`…/checkpoints/step-00000100`), the folder of checkpoints, or a run's folder, of several the newest valid one; or a
 * Hugging Face folder
 * @throws {IoError} if there is nothing of the kind; {@link FormatError} if it is damaged
 */
export async function loadModel(path: string, options: LoadModelOptions = {}): Promise<LoadedModel> {
  const { device = defaultDevice(), tokenizer = true } = options;
  if (await isHuggingFaceFolder(path)) return loadFolder(path, device, tokenizer);
  const checkpoint = await findCheckpoint(path);
  const { params: loaded, optimizer, state } = await loadCheckpoint(checkpoint, { device: "cpu" });
  disposeParams(optimizer.tensors);
  const params = moved(weightsOf(loaded), device);
  const config = readRunConfig(checkpoint, state.config);
  const model = new Transformer(config.model);
  return disposable({ model, params, tokenizer: tokenizerOf(config), stopTokens: config.stopTokens ?? [], checkpoint });
}

/** Whether a folder's config.json names an architecture; that of a run describes a training. */
async function isHuggingFaceFolder(path: string): Promise<boolean> {
  const text = await readFile(join(path, "config.json"), "utf8").catch(() => undefined);
  if (text === undefined) return false;
  try {
    const json: unknown = JSON.parse(text);
    return isObject(json) && ("model_type" in json || "architectures" in json);
  } catch {
    return false;
  }
}

async function loadFolder(path: string, device: DeviceChoice, readTokenizer: boolean): Promise<LoadedModel> {
  const tokenizerFile = join(path, "tokenizer.json");
  const tokenizer =
    readTokenizer && (await exists(tokenizerFile)) ? await loadHuggingFaceTokenizer(tokenizerFile) : undefined;
  const { model, params, source, eosTokens } = await loadHuggingFace(path, { device });
  return disposable({ model, params, tokenizer, stopTokens: eosTokens, checkpoint: path, source });
}

/** The average of a run's weights where it has one, which is what was evaluated, in the dtype of the weights; frees what isn't used. */
function weightsOf(loaded: Record<string, Tensor>): Record<string, Tensor> {
  const { params, average } = splitAverages(loaded);
  if (average === undefined) return params;
  for (const [name, one] of Object.entries(average)) {
    const { dtype } = params[name]!;
    params[name]!.dispose();
    params[name] = one.dtype === dtype ? one : keep(scope(() => one.astype(dtype)));
    if (params[name] !== one) one.dispose();
  }
  return params;
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
  throw new IoError(
    `[llmeff] ${path} ${what}. Name a checkpoint (…/step-00000100), the folder of a training run, or a Hugging Face folder.`,
  );
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
