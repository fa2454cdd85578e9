/**
 * Model files of llama2.c (its first version): seven int32 (width, feed-forward width, layers, heads, key heads, vocabulary, positions), then float32
 * matrices as `[out, in]`, by kind and within a kind by layer, little-endian. A negative vocabulary says that the output layer has a matrix of its own.
 *
 * Its rotary positions turn neighbouring channels. Here they are turned as in Hugging Face's Llama, `i` with `i + D/2`: the rows of the matrices of
 * queries and keys change places, so that a model read here is a Llama like any other.
 */
import { readFile } from "node:fs/promises";
import {
  type DeviceChoice,
  FormatError,
  IoError,
  keep,
  OptionError,
  replaceDurably,
  ropeFrequencies,
  type Tensor,
  tensor,
} from "@llmeff/tensor";
import type { ResolvedConfig } from "./config.js";
import { checkParameters, type Parameters, parameterSpecs } from "./parameters.js";
import { Transformer } from "./transformer.js";

const headerBytes = 28;

/** The parameters in the order of the file, each kind of all layers together; where it stands the tables of rotary positions. */
function fileOrder({ layers, tieEmbeddings }: Pick<ResolvedConfig, "layers" | "tieEmbeddings">) {
  const ofLayers = (part: string) => layers.map((_, i) => `model.layers.${i}.${part}.weight`);
  const before = [
    "model.embed_tokens.weight",
    ...ofLayers("input_layernorm"),
    ...["q", "k", "v", "o"].flatMap((name) => ofLayers(`self_attn.${name}_proj`)),
    ...ofLayers("post_attention_layernorm"),
    ...["gate", "down", "up"].flatMap((name) => ofLayers(`mlp.${name}_proj`)),
    "model.norm.weight",
  ];
  return { before, after: tieEmbeddings ? [] : ["lm_head.weight"] };
}

/** The place in a head, with halves turned, of each row with neighbours turned. */
const halfOf = (row: number, headDim: number) => (row % 2) * (headDim / 2) + Math.floor(row / 2);

const isTurned = (name: string) => /\.[qk]_proj\.weight$/.test(name);

/** Rows of a matrix `[heads · D, C]` from one order to the other. */
function reordered(values: Float32Array, columns: number, headDim: number, to: "half" | "neighbour"): Float32Array {
  const out = new Float32Array(values.length);
  for (let row = 0; row < values.length / columns; row++) {
    const other = row - (row % headDim) + halfOf(row % headDim, headDim);
    const [from, at] = to === "half" ? [row, other] : [other, row];
    out.set(values.subarray(from * columns, (from + 1) * columns), at * columns);
  }
  return out;
}

function parseHeader(path: string, bytes: Buffer): Transformer {
  const fail = (message: string, cause?: unknown): never => {
    throw new FormatError(`[loadLlama2c] ${path}: ${message}`, { cause });
  };
  if (bytes.length < headerBytes)
    fail(`a model of llama2.c has at least ${headerBytes} bytes; received ${bytes.length}.`);
  const [dModel, ffnDim, numLayers, numHeads, numKvHeads, vocab, maxSeqLen] = Array.from({ length: 7 }, (_, i) =>
    bytes.readInt32LE(4 * i),
  ) as [number, number, number, number, number, number, number];
  // A file of another kind may state any numbers: refused before anything of their size is made. Each layer has two norms of the width.
  if (numLayers <= 0 || dModel <= 0 || 8 * numLayers * dModel > bytes.length)
    fail(`${numLayers} layers of width ${dModel} don't fit into ${bytes.length} bytes. Is it a model of llama2.c?`);
  try {
    const vocabSize = Math.abs(vocab);
    return new Transformer({
      vocabSize,
      dModel,
      numLayers,
      numHeads,
      numKvHeads,
      ffnDim,
      maxSeqLen,
      tieEmbeddings: vocab > 0,
    });
  } catch (cause) {
    return fail(`its first bytes describe no model: ${(cause as Error).message} Is it a model of llama2.c?`, cause);
  }
}

/** A model of llama2.c in memory; its parameters belong to the caller. */
export interface Llama2cModel {
  model: Transformer;
  params: Parameters;
}

/**
 * Reads a model file of llama2.c, such as `stories260K.bin`.
 *
 * @throws {FormatError} if its size isn't that of the model its first bytes describe
 * @throws {IoError} if it can't be read
 *
 * @example
 * const { model, params } = await loadLlama2c("stories260K.bin");
 */
export async function loadLlama2c(path: string, options: { device?: DeviceChoice } = {}): Promise<Llama2cModel> {
  const bytes = await readFile(path).catch((cause: Error) => {
    throw new IoError(`[loadLlama2c] ${path} can't be read: ${cause.message}.`, { cause });
  });
  const model = parseHeader(path, bytes);
  const { config } = model;
  const tables = config.maxSeqLen * config.headDim;
  const expected = headerBytes + 4 * (model.parameterCount + tables);
  if (bytes.length !== expected) {
    throw new FormatError(
      `[loadLlama2c] ${path}: the model of its first bytes needs ${expected} bytes; the file has ${bytes.length}. It is truncated or no model of llama2.c.`,
    );
  }
  const values = new Float32Array(bytes.length / 4 - headerBytes / 4);
  for (let i = 0; i < values.length; i++) values[i] = bytes.readFloatLE(headerBytes + 4 * i);
  const shapes = new Map(parameterSpecs(config).map(({ name, shape }) => [name, shape]));
  const made: Parameters = {};
  let at = 0;
  const take = (name: string) => {
    const shape = shapes.get(name)!;
    const part = values.subarray(at, at + shape.reduce((a, b) => a * b, 1));
    at += part.length;
    const data = isTurned(name) ? reordered(part, shape[1]!, config.headDim, "half") : part.slice();
    made[name] = keep(tensor(data, { shape, ...options }));
  };
  const { before, after } = fileOrder(config);
  for (const name of before) take(name);
  at += tables;
  for (const name of after) take(name);
  return { model, params: Object.fromEntries([...shapes.keys()].map((name) => [name, made[name]!])) };
}

/** Fields in which a model of the format must be as every other. */
function requirePlain(config: ResolvedConfig): void {
  const { vocabSize, dModel, numLayers, numHeads, numKvHeads, ffnDim, maxSeqLen, tieEmbeddings, initStd } = config;
  const plain = new Transformer({
    vocabSize,
    dModel,
    numLayers,
    numHeads,
    numKvHeads,
    ffnDim,
    maxSeqLen,
    tieEmbeddings,
    initStd,
  });
  const keys = new Set([...Object.keys(config), ...Object.keys(plain.config)]) as Set<keyof ResolvedConfig>;
  const other = [...keys].filter((key) => JSON.stringify(config[key]) !== JSON.stringify(plain.config[key]));
  if (other.length === 0) return;
  throw new OptionError(
    `[saveLlama2c] the format can't state ${other.join(", ")} of this model; it has plain Llamas only.`,
  );
}

/** The tables that the format has for the sake of its first readers. */
function rotaryTables({ maxSeqLen, headDim, ropeBase: base }: ResolvedConfig): Float32Array {
  const { frequencies } = ropeFrequencies(headDim, { base });
  const half = (f: (angle: number) => number) =>
    Array.from({ length: maxSeqLen }, (_, t) => Array.from(frequencies, (frequency) => f(t * frequency))).flat();
  return Float32Array.from([...half(Math.cos), ...half(Math.sin)]);
}

async function valuesOf(name: string, x: Tensor, headDim: number): Promise<Float32Array> {
  using wide = x.astype("float32");
  const values = (await wide.data()) as Float32Array;
  return isTurned(name) ? reordered(values, x.shape[1]!, headDim, "neighbour") : values;
}

/**
 * Writes a model file of llama2.c, in float32: to a temporary file beside it, which is renamed.
 *
 * @throws {OptionError} if the model has what the format can't state, or the parameters are not the model's
 * @throws {IoError} if the file can't be written; what was at `path` is unchanged
 */
export async function saveLlama2c(path: string, model: Transformer, params: Parameters): Promise<void> {
  const { config } = model;
  requirePlain(config);
  checkParameters("saveLlama2c", config, params);
  const header = [config.dModel, config.ffnDim, config.numLayers, config.numHeads, config.numKvHeads];
  header.push(config.tieEmbeddings ? config.vocabSize : -config.vocabSize, config.maxSeqLen);
  const { before, after } = fileOrder(config);
  const part = (name: string) => valuesOf(name, params[name]!, config.headDim);
  const parts = [
    ...(await Promise.all(before.map(part))),
    rotaryTables(config),
    ...(await Promise.all(after.map(part))),
  ];
  const bytes = Buffer.alloc(headerBytes + 4 * parts.reduce((n, values) => n + values.length, 0));
  let at = 0;
  for (const field of header) at = bytes.writeInt32LE(field, at);
  for (const values of parts) for (const value of values) at = bytes.writeFloatLE(value, at);
  try {
    await replaceDurably(path, (file) => file.writeFile(bytes));
  } catch (cause) {
    throw new IoError(`[saveLlama2c] ${path} can't be written: ${(cause as Error).message}. Nothing was changed.`, {
      cause,
    });
  }
}
