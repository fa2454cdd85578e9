import { type DeviceChoice, type DType, keep, mul, ones, randomNormal, scope, type Tensor } from "@llmeff/tensor";
import type { ResolvedConfig } from "./config.js";

/** A model's weights by their Hugging Face names. */
export type Parameters = Record<string, Tensor>;

export interface InitOptions {
  /** Where the parameters are made, and with them the model runs; default that of `tensor`. */
  device?: DeviceChoice | undefined;
  /** What the parameters are kept and computed in; default float32. Optimizers keep float32 masters of bfloat16 parameters. */
  dtype?: DType | undefined;
}

/** How a parameter begins. */
type Init = "ones" | "normal" | "residual";

export interface ParameterSpec {
  name: string;
  shape: readonly number[];
  init: Init;
}

/** Prefix of a layer's parameters. */
export function layerPrefix(index: number): string {
  return `model.layers.${index}`;
}

function layerSpecs(config: ResolvedConfig, index: number): ParameterSpec[] {
  const { dModel, ffnDim, numHeads, headDim } = config;
  const { kind, qkNorm, numKvHeads } = config.layers[index]!;
  const at = layerPrefix(index);
  const matrix = (name: string, rows: number, columns: number, init: Init = "normal"): ParameterSpec => ({
    name: `${at}.${name}.weight`,
    shape: [rows, columns],
    init,
  });
  const norm = (name: string, size: number): ParameterSpec => ({
    name: `${at}.${name}.weight`,
    shape: [size],
    init: "ones",
  });
  const kv = numKvHeads * headDim;
  const simplicial = kind === "simplicial";
  return [
    norm("input_layernorm", dModel),
    matrix("self_attn.q_proj", numHeads * headDim, dModel),
    matrix("self_attn.k_proj", kv, dModel),
    matrix("self_attn.v_proj", kv, dModel),
    ...(simplicial ? [matrix("self_attn.k2_proj", kv, dModel), matrix("self_attn.v2_proj", kv, dModel)] : []),
    ...(qkNorm ? [norm("self_attn.q_norm", headDim), norm("self_attn.k_norm", headDim)] : []),
    ...(qkNorm && simplicial ? [norm("self_attn.k2_norm", headDim)] : []),
    matrix("self_attn.o_proj", dModel, numHeads * headDim, "residual"),
    norm("post_attention_layernorm", dModel),
    matrix("mlp.gate_proj", ffnDim, dModel),
    matrix("mlp.up_proj", ffnDim, dModel),
    matrix("mlp.down_proj", dModel, ffnDim, "residual"),
  ];
}

/** Names and shapes of all parameters, in the order of the forward pass. */
export function parameterSpecs(config: ResolvedConfig): ParameterSpec[] {
  const { vocabSize, dModel, numLayers, maxSeqLen, positions, tieEmbeddings } = config;
  const learned = positions === "learned";
  return [
    { name: "model.embed_tokens.weight", shape: [vocabSize, dModel], init: "normal" },
    ...(learned ? [{ name: "model.embed_positions.weight", shape: [maxSeqLen, dModel], init: "normal" as const }] : []),
    ...Array.from({ length: numLayers }, (_, i) => layerSpecs(config, i)).flat(),
    { name: "model.norm.weight", shape: [dModel], init: "ones" },
    ...(tieEmbeddings ? [] : [{ name: "lm_head.weight", shape: [vocabSize, dModel], init: "normal" as const }]),
  ];
}

/** Number of values in all parameters. */
export function countParameters(config: ResolvedConfig): number {
  return parameterSpecs(config).reduce((n, { shape }) => n + shape.reduce((a, b) => a * b, 1), 0);
}

/**
 * Fresh parameters: norms are 1, matrices normal with `initStd`, those that write to the residual stream with `initStd / √(2·numLayers)`
 * (models.md §2.6). Each parameter draws from a random stream of its own, so adding a layer leaves the others as they were.
 */
export function initParameters(
  config: ResolvedConfig,
  seed: number,
  { device, dtype = "float32" }: InitOptions = {},
): Parameters {
  const { initStd, numLayers } = config;
  const residualStd = initStd / Math.sqrt(2 * numLayers);
  const entries = parameterSpecs(config).map(({ name, shape, init }, stream) => {
    const value =
      init === "ones"
        ? ones(shape, { device, dtype })
        : scope(() => {
            const std = init === "residual" ? residualStd : initStd;
            const normal = mul(randomNormal({ seed, stream }, shape, { device }), std);
            return normal.astype(dtype);
          });
    return [name, keep(value)] as const;
  });
  return Object.fromEntries(entries);
}
