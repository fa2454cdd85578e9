/** From a model with its parameters to a Hugging Face folder. */
import { randomUUID } from "node:crypto";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import {
  type DType,
  IoError,
  itemSize,
  keep,
  OptionError,
  saveSafetensors,
  scope,
  syncFolder,
  type Tensor,
  writeDurably,
} from "@llmeff/tensor";
import { type ResolvedConfig, resolveConfig } from "../config.js";
import { checkParameters, type Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import { indexFile, weightsFile } from "./checkpoint-files.js";
import { families } from "./families/index.js";
import type { Family } from "./family.js";
import { JsonFields, type JsonObject } from "./json-fields.js";
import type { ConfigForm } from "./rope-fields.js";
import type { NamedShape, TensorMapping } from "./tensor-map.js";

export interface SaveHuggingFaceOptions {
  /** Of the weights; default as the parameters are. */
  dtype?: "float32" | "bfloat16" | "float16" | "float64";
  /** Most bytes of one file of weights; default 5 · 10⁹. */
  maxShardBytes?: number;
  /** How config.json is written; default `old`, which every version of transformers reads. */
  configForm?: ConfigForm;
  /** A config.json whose other fields are kept, as `loadHuggingFace` returned it. */
  source?: JsonObject;
  /** Further files of the folder, such as `tokenizer.json`, by their names. */
  files?: Readonly<Record<string, string | Uint8Array>>;
}

/** Fields that not every form of a configuration and not every family writes: of a source only the written ones may stay. */
const formFields = [
  "rope_theta",
  "rope_scaling",
  "rope_parameters",
  "partial_rotary_factor",
  "layer_types",
  "torch_dtype",
  "dtype",
];

/** Whether two values are the same up to the rounding of numbers. */
function alike(a: unknown, b: unknown): boolean {
  if (typeof a === "number" && typeof b === "number") return Math.abs(a - b) <= 1e-9 * Math.abs(a);
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return a === b;
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].every((key) => alike((a as JsonObject)[key], (b as JsonObject)[key]));
}

/** Fields that say nothing of what the model computes from its weights. */
const trainingFields: readonly string[] = ["maxSeqLen", "zeroInitResidual"];

/** The fields of a model that a family can't state: what it writes is read back and compared. */
function lost(family: Family, config: ResolvedConfig): string[] {
  let back: ResolvedConfig;
  try {
    back = resolveConfig(family.read(new JsonFields(family.write(config, "new"), "config.json")));
  } catch {
    return ["its kind of model"];
  }
  const keys = new Set([...Object.keys(config), ...Object.keys(back)]) as Set<keyof ResolvedConfig>;
  return [...keys].filter((key) => !trainingFields.includes(key) && !alike(config[key], back[key]));
}

function familyFor(config: ResolvedConfig, source: JsonObject | undefined): Family {
  const [own, others] = [families.filter(({ modelType }) => modelType === source?.model_type), families];
  const tried = [...own, ...others].map((family) => ({ family, lost: lost(family, config) }));
  const found = tried.find(({ lost }) => lost.length === 0);
  if (found !== undefined) return found.family;
  const nearest = tried.reduce((best, one) => (one.lost.length < best.lost.length ? one : best));
  throw new OptionError(
    `[saveHuggingFace] the model is of none of the families ${families.map(({ modelType }) => modelType).join(", ")}; the nearest, ${nearest.family.modelType}, can't state ${nearest.lost.join(", ")}.`,
  );
}

/** A file of weights: the mappings whose tensors it holds. */
interface Shard {
  file: string;
  mappings: TensorMapping[];
  bytes: number;
}

/** Mappings in their order, in as few files as the limit allows; a mapping is never divided. */
function planShards(
  mappings: readonly TensorMapping[],
  bytesOf: (mapping: TensorMapping) => number,
  limit: number,
): Shard[] {
  const shards: Shard[] = [];
  for (const mapping of mappings) {
    const bytes = bytesOf(mapping);
    const last = shards.at(-1);
    if (last === undefined || last.bytes + bytes > limit)
      shards.push({ file: weightsFile, mappings: [mapping], bytes });
    else {
      last.mappings.push(mapping);
      last.bytes += bytes;
    }
  }
  if (shards.length === 1) return shards;
  const digits = (n: number) => String(n).padStart(5, "0");
  return shards.map((shard, i) => ({
    ...shard,
    file: `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`,
  }));
}

/** The tensors of a file under its names; disposed by the caller. */
function tensorsOf({ mappings }: Shard, params: Parameters, dtype: DType | undefined): Record<string, Tensor> {
  return scope(() => {
    const entries = mappings.flatMap(({ ours, theirs, write }) => {
      const made = write(ours.map((name) => params[name]!));
      return theirs.map(({ name }: NamedShape, i) => {
        const x = made[i]!;
        // A copy where nothing else made one, so that all can be disposed.
        return [name, dtype === undefined || x.dtype === dtype ? x.clone() : x.astype(dtype)] as const;
      });
    });
    return keep(Object.fromEntries(entries));
  });
}

/** PyTorch's name of the dtype that all parameters have; that of the first where they differ. */
function torchDType(params: Parameters, dtype: DType | undefined): DType {
  return dtype ?? Object.values(params)[0]!.dtype;
}

async function refuseExisting(folder: string): Promise<void> {
  const there = await stat(folder).then(
    () => true,
    () => false,
  );
  if (there)
    throw new IoError(`[saveHuggingFace] ${folder} is there already. Choose another name, or remove it first.`);
}

/**
 * Writes a model as a Hugging Face folder: `config.json`, `model.safetensors` or several files with their index, and the files given. All of it is
 * written beside its place and renamed: the folder is there whole or not at all.
 *
 * @throws {OptionError} if the model is of no family that Hugging Face knows, naming what the nearest one can't state
 * @throws {IoError} if the folder is there already or can't be written
 *
 * @example
 * await saveHuggingFace("models/mine", model, params, { dtype: "bfloat16" });
 */
export async function saveHuggingFace(
  folder: string,
  model: Transformer,
  params: Parameters,
  options: SaveHuggingFaceOptions = {},
): Promise<void> {
  const { dtype, maxShardBytes = 5e9, configForm = "old", source = {}, files = {} } = options;
  const nested = Object.keys(files).find((name) => basename(name) !== name);
  if (nested !== undefined) {
    throw new OptionError(
      `[saveHuggingFace] files must have names without folders; received ${JSON.stringify(nested)}.`,
    );
  }
  if (!(maxShardBytes > 0)) {
    throw new OptionError(`[saveHuggingFace] maxShardBytes must be a positive number; received ${maxShardBytes}.`);
  }
  const { config } = model;
  const family = familyFor(config, options.source);
  checkParameters("saveHuggingFace", config, params);
  const kept = Object.fromEntries(Object.entries(source).filter(([name]) => !formFields.includes(name)));
  const json = {
    ...kept,
    model_type: family.modelType,
    architectures: [family.architecture],
    ...family.write(config, configForm),
    [configForm === "old" ? "torch_dtype" : "dtype"]: torchDType(params, dtype),
  };
  const bytesOf = ({ ours }: TensorMapping) =>
    ours.reduce((n, name) => n + params[name]!.size * itemSize(dtype ?? params[name]!.dtype), 0);
  const shards = planShards(family.tensors(config), bytesOf, maxShardBytes);
  await writeFolder(resolve(folder), async (inside) => {
    for (const shard of shards) {
      const tensors = tensorsOf(shard, params, dtype);
      try {
        await saveSafetensors(join(inside, shard.file), tensors, { format: "pt" });
      } finally {
        for (const tensor of Object.values(tensors)) tensor.dispose();
      }
    }
    if (shards.length > 1) await writeDurably(join(inside, indexFile), pretty(indexOf(shards)));
    await writeDurably(join(inside, "config.json"), pretty(json));
    for (const [name, content] of Object.entries(files)) await writeDurably(join(inside, name), content);
  });
}

const pretty = (json: unknown) => `${JSON.stringify(json, null, 2)}\n`;

function indexOf(shards: readonly Shard[]): JsonObject {
  const names = shards.flatMap(({ file, mappings }) =>
    mappings.flatMap(({ theirs }) => theirs.map(({ name }) => [name, file] as const)),
  );
  return {
    metadata: { total_size: shards.reduce((n, { bytes }) => n + bytes, 0) },
    weight_map: Object.fromEntries(names),
  };
}

/** Fills a new folder, which appears under its name when all is on the disk. */
async function writeFolder(folder: string, fill: (inside: string) => Promise<void>): Promise<void> {
  await refuseExisting(folder);
  const parent = dirname(folder);
  const temporary = join(parent, `.${basename(folder)}.${randomUUID()}.tmp`);
  try {
    await mkdir(parent, { recursive: true });
    await mkdir(temporary);
    await fill(temporary);
    await syncFolder(temporary);
    await rename(temporary, folder);
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    if (!(cause instanceof Error && "syscall" in cause)) throw cause;
    throw new IoError(`[saveHuggingFace] ${folder} can't be written: ${cause.message}. Nothing was changed.`, {
      cause,
    });
  }
  await syncFolder(parent);
}
