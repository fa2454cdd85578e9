/** `llmeff convert SOURCE TARGET` */
import { readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { loadHuggingFaceTokenizer, loadLlama2cTokenizer, type Tokenizer, tokenizerJson } from "@llmeff/data";
import {
  type ConfigForm,
  loadLlama2c,
  type SaveHuggingFaceOptions,
  saveHuggingFace,
  saveLlama2c,
} from "@llmeff/models";
import { IoError } from "@llmeff/native/errors";
import { formatNumber } from "@llmeff/report";
import { UsageError } from "../errors.js";
import { type Io, note, print } from "../io.js";
import { disposeParams } from "../run/dispose-params.js";
import { type LoadedModel, loadModel } from "../run/load-model.js";
import { makeFolder } from "../run/make-folder.js";

/** Of the weights in the target. */
export const convertedDTypes = ["float32", "bfloat16", "float16"] as const;
export const configForms = ["old", "new"] as const satisfies readonly ConfigForm[];

export interface ConvertCommandOptions {
  tokenizer?: string;
  dtype?: (typeof convertedDTypes)[number];
  maxShardBytes?: number;
  configForm?: ConfigForm;
}

const isLlama2c = (path: string) => path.endsWith(".bin");

/** Files of a Hugging Face folder that go with it as they are; those of a tokenizer only where no other is given. */
const generationFiles = ["generation_config.json"];
const tokenizerFiles = [
  "chat_template.jinja",
  "merges.txt",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "vocab.json",
];

/** A file that is there, or undefined. */
async function readCompanion(path: string): Promise<Uint8Array | undefined> {
  return readFile(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return undefined;
    throw new IoError(`[convert] ${path} can't be read: ${cause.message}.`, { cause });
  });
}

async function companionsOf(folder: string, names: readonly string[]): Promise<Record<string, Uint8Array>> {
  const files = await Promise.all(names.map(async (name) => [name, await readCompanion(join(folder, name))] as const));
  return Object.fromEntries(files.filter((file): file is [string, Uint8Array] => file[1] !== undefined));
}

function loadTokenizer(path: string): Promise<Tokenizer> {
  return isLlama2c(path) ? loadLlama2cTokenizer(path) : loadHuggingFaceTokenizer(path);
}

async function open(path: string): Promise<LoadedModel> {
  if (!isLlama2c(path)) return loadModel(path, { device: "cpu", tokenizer: false });
  const { model, params } = await loadLlama2c(path, { device: "cpu" });
  return {
    model,
    params,
    tokenizer: undefined,
    stopTokens: [],
    checkpoint: path,
    [Symbol.dispose]() {
      disposeParams(params);
      model.dispose();
    },
  };
}

/** What tells readers of the folder where the texts of a run end. */
function endings({ stopTokens }: LoadedModel): Record<string, string> {
  return stopTokens.length === 0 ? {} : { "generation_config.json": JSON.stringify({ eos_token_id: stopTokens }) };
}

/** The files beside the weights: those of the source, and the tokenizer given or that of a run. */
async function filesFor(
  io: Io,
  loaded: LoadedModel,
  given: Tokenizer | undefined,
): Promise<Record<string, string | Uint8Array>> {
  const names = given === undefined ? [...generationFiles, ...tokenizerFiles] : generationFiles;
  const files = loaded.source === undefined ? endings(loaded) : await companionsOf(loaded.checkpoint, names);
  const tokenizer = given ?? (loaded.source === undefined ? loaded.tokenizer : undefined);
  if (tokenizer === undefined) return files;
  const json = tokenizerJson(tokenizer);
  if (json === undefined) {
    note(
      io,
      "[convert] the run's character tokenizer has no form in tokenizer.json; the folder is written without it.",
    );
    return files;
  }
  return { ...files, "tokenizer.json": JSON.stringify(json) };
}

function requireFitting(loaded: LoadedModel, tokenizer: Tokenizer | undefined): void {
  const { vocabSize } = loaded.model.config;
  if (tokenizer === undefined || tokenizer.vocabSize <= vocabSize) return;
  throw new UsageError(
    `[convert] the tokenizer has ${tokenizer.vocabSize} tokens, the model a vocabulary of ${vocabSize}. Do they belong together?`,
  );
}

/**
 * Writes a model in another form: a training run, checkpoint, Hugging Face folder or model file of llama2.c (`.bin`) as a Hugging Face folder, or as
 * a model file of llama2.c where the target ends in `.bin`.
 */
export async function convertCommand(io: Io, from: string, to: string, options: ConvertCommandOptions): Promise<void> {
  const [source, target] = [resolve(io.cwd, from), resolve(io.cwd, to)];
  const { tokenizer: tokenizerPath, ...saving } = options;
  if (isLlama2c(target)) {
    const unused = Object.keys(options);
    if (unused.length > 0) {
      throw new UsageError(`[convert] a .bin file holds float32 weights alone; leave out ${unused.join(", ")}.`);
    }
  }
  using loaded = await open(source);
  const { model, params } = loaded;
  const given = tokenizerPath === undefined ? undefined : await loadTokenizer(resolve(io.cwd, tokenizerPath));
  requireFitting(loaded, given);
  await makeFolder(dirname(target));
  if (isLlama2c(target)) await saveLlama2c(target, model, params);
  else {
    const files = await filesFor(io, loaded, given);
    const kept: SaveHuggingFaceOptions = loaded.source === undefined ? {} : { source: loaded.source };
    await saveHuggingFace(target, model, params, { ...kept, ...saving, files });
  }
  print(io, `${basename(target)}: ${formatNumber(model.parameterCount)} parameters, from ${loaded.checkpoint}`);
}
