/** From a Hugging Face folder to a model with its parameters. */
import { join } from "node:path";
import {
  type DeviceChoice,
  type DType,
  FormatError,
  isFloating,
  keep,
  OptionError,
  type StoredDType,
  scope,
  type Tensor,
} from "@llmeff/tensor";
import type { Parameters } from "../parameters.js";
import { Transformer } from "../transformer.js";
import { CheckpointError, type TensorDifferences } from "./checkpoint-error.js";
import { CheckpointFiles, readJson, readJsonIfThere } from "./checkpoint-files.js";
import { families } from "./families/index.js";
import type { Family } from "./family.js";
import { JsonFields, type JsonObject } from "./json-fields.js";
import type { TensorMapping } from "./tensor-map.js";

export interface LoadHuggingFaceOptions {
  /** Of the parameters; default as they are in the file, and where tensors there differ the one that holds them all. */
  dtype?: DType;
  /** Where they are made; default that of `tensor`. */
  device?: DeviceChoice;
  /** Longest sequence, instead of the configuration's. */
  maxSeqLen?: number;
}

/** A checkpoint in memory; its parameters belong to the caller. */
export interface HuggingFaceModel {
  model: Transformer;
  params: Parameters;
  /** The content of config.json. */
  source: JsonObject;
  bosToken: number | undefined;
  /** Tokens that end a text: those of config.json and, where it is there, of generation_config.json, which chat models add their own to. */
  eosTokens: number[];
}

/** The family of a configuration, by its `model_type`, else by its `architectures`. */
export function familyOf(fields: JsonFields): Family {
  const type = fields.has("model_type") ? fields.text("model_type") : undefined;
  const architecture = fields.list("architectures")?.[0];
  const found = families.find((family) => {
    return type === undefined ? family.architecture === architecture : family.modelType === type;
  });
  if (found !== undefined) return found;
  throw new FormatError(
    `[loadHuggingFace] ${fields.where}: ${JSON.stringify(type ?? architecture ?? null)} is none of the architectures that can be read: ${families.map(({ modelType }) => modelType).join(", ")}.`,
  );
}

function tokenIds(fields: JsonFields, name: string): number[] {
  const value = fields.json[name];
  const ids = value === undefined || value === null ? [] : Array.isArray(value) ? value : [value];
  if (!ids.every((id) => Number.isSafeInteger(id) && id >= 0)) {
    fields.fail(`${name} must be a token id or a list of them; received ${JSON.stringify(value)}.`);
  }
  return ids;
}

/** GPT-2's own checkpoints lack the prefix that those of its language model have. */
function namesInFile(mappings: readonly TensorMapping[], files: CheckpointFiles): TensorMapping[] {
  const prefix = "transformer.";
  const names = files.names;
  if (names.some((name) => name.startsWith(prefix))) return [...mappings];
  return mappings.map((mapping) => ({
    ...mapping,
    theirs: mapping.theirs.map(({ name, shape }) => ({ name: name.replace(prefix, ""), shape })),
  }));
}

function compare(
  family: Family,
  mappings: readonly TensorMapping[],
  files: CheckpointFiles,
  tied: boolean,
): TensorDifferences {
  const expected = new Map(mappings.flatMap(({ theirs }) => theirs.map(({ name, shape }) => [name, shape] as const)));
  const missing: string[] = [];
  const misshapen: TensorDifferences["misshapen"] = [];
  for (const [name, shape] of expected) {
    const received = files.shapeOf(name);
    if (received === undefined) missing.push(name);
    else if (received.length !== shape.length || received.some((n, i) => n !== shape[i])) {
      misshapen.push({ name, expected: shape, received });
    }
  }
  // PyTorch counts and indexes in int64: such a tensor is a buffer (positions, steps), and weights in it would be missing elsewhere.
  const isBuffer = (name: string) => family.ignored.test(name) || files.dtypeOf(name) === "int64";
  const superfluous = (name: string) => isBuffer(name) || (tied && name === "lm_head.weight");
  const unexpected = files.names.filter((name) => !expected.has(name) && !superfluous(name));
  return { missing, unexpected, misshapen };
}

/** Whether numbers of a stored dtype are weights as they are: those of `isFloating`, and float8 not. */
function isWhole(dtype: StoredDType): dtype is DType {
  return isFloating(dtype as DType);
}

/**
 * The one dtype that a model computes in: that of the file, or where its tensors differ (norms kept in float32) the narrowest that holds them all.
 *
 * @throws {FormatError} for integers and float8: weights that some scheme of quantization has packed mean nothing by themselves
 */
function commonDType(folder: string, mappings: readonly TensorMapping[], files: CheckpointFiles): DType {
  const stored = mappings.flatMap(({ theirs }) => theirs.map(({ name }) => [name, files.dtypeOf(name)] as const));
  const dtypes = new Set<DType>();
  const packed: string[] = [];
  for (const [name, dtype] of stored) {
    if (isWhole(dtype)) dtypes.add(dtype);
    else packed.push(`"${name}" (${dtype})`);
  }
  if (packed.length > 0) {
    throw new FormatError(
      `[loadHuggingFace] ${folder}: ${packed.length} tensors are of no dtype of whole weights: ${packed.slice(0, 8).join(", ")}${packed.length > 8 ? ", …" : ""}. Quantized checkpoints can't be read; take one in float32, bfloat16 or float16.`,
    );
  }
  const [only] = dtypes;
  if (dtypes.size === 1) return only!;
  return dtypes.has("float64") ? "float64" : "float32";
}

async function readParameters(
  mappings: readonly TensorMapping[],
  files: CheckpointFiles,
  dtype: DType,
  device: DeviceChoice | undefined,
): Promise<Parameters> {
  const params: Parameters = {};
  try {
    for (const { ours, theirs, read } of mappings) {
      const inputs: Tensor[] = [];
      try {
        for (const { name } of theirs) inputs.push(await files.read(name, device === undefined ? {} : { device }));
        const made = scope(() => read(inputs.map((x) => (x.dtype === dtype ? x : x.astype(dtype)))));
        for (const [i, name] of ours.entries()) params[name] = keep(made[i]!);
      } finally {
        const kept = new Set(Object.values(params));
        for (const input of inputs) if (!kept.has(input)) input.dispose();
      }
    }
    return params;
  } catch (error) {
    for (const param of Object.values(params)) param.dispose();
    throw error;
  }
}

/** Ids beyond the vocabulary, which small models cut out of large ones have, are never drawn. */
async function endTokens(folder: string, fields: JsonFields, vocabSize: number): Promise<number[]> {
  const path = join(folder, "generation_config.json");
  const generation = await readJsonIfThere(path);
  const further = generation === undefined ? [] : tokenIds(new JsonFields(generation, path), "eos_token_id");
  return [...new Set([...tokenIds(fields, "eos_token_id"), ...further])].filter((id) => id < vocabSize);
}

/** The parameters in the order of the forward pass, as `init` gives them. */
function inOrder(model: Transformer, params: Parameters): Parameters {
  return Object.fromEntries(Object.keys(model.learningRateScales()).map((name) => [name, params[name]!]));
}

/**
 * Reads a folder of a Llama, Mistral, Qwen2, Qwen3, Mixtral, Gemma 2 or GPT-2 checkpoint: `config.json` (of transformers 4 or 5), and
 * `model.safetensors` or the files that `model.safetensors.index.json` names. Beside the parameters, memory holds one tensor of the file.
 *
 * @throws {CheckpointError} with every missing, unexpected and misshapen tensor, before any is read
 * @throws {FormatError} for an unknown architecture, kind of rotary scaling or activation, integers for weights, or a damaged file
 * @throws {IoError} if a file is missing or can't be read
 *
 * @example
 * const { model, params } = await loadHuggingFace("models/tiny-llama", { dtype: "float32" });
 */
export async function loadHuggingFace(folder: string, options: LoadHuggingFaceOptions = {}): Promise<HuggingFaceModel> {
  const { dtype } = options;
  if (dtype !== undefined && !isFloating(dtype)) {
    throw new OptionError(`[loadHuggingFace] dtype must be a floating-point one; received ${dtype}.`);
  }
  const path = join(folder, "config.json");
  const source = await readJson(path);
  const fields = new JsonFields(source, path);
  const family = familyOf(fields);
  const config = family.read(fields);
  const model = new Transformer({ ...config, maxSeqLen: options.maxSeqLen ?? config.maxSeqLen });
  const eosTokens = await endTokens(folder, fields, model.config.vocabSize);
  await using files = await CheckpointFiles.open(folder);
  const mappings = namesInFile(family.tensors(model.config), files);
  const differences = compare(family, mappings, files, model.config.tieEmbeddings);
  if (Object.values(differences).some((list) => list.length > 0)) throw new CheckpointError(folder, differences);
  const stored = commonDType(folder, mappings, files);
  const params = inOrder(model, await readParameters(mappings, files, dtype ?? stored, options.device));
  return {
    model,
    params,
    source,
    bosToken: tokenIds(fields, "bos_token_id")[0],
    eosTokens,
  };
}
