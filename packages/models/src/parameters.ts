import {
  type DeviceChoice,
  type DType,
  keep,
  mul,
  OptionError,
  ones,
  randomNormal,
  scope,
  type Tensor,
  zeros,
} from "@llmeff/tensor";
import { expertsOf, isGated, type ResolvedConfig, widthRatio } from "./config.js";
import type { ResolvedExperts } from "./experts-config.js";

/** A model's weights by their Hugging Face names. */
export type Parameters = Record<string, Tensor>;

export interface InitOptions {
  /** Where the parameters are made, and with them the model runs; default that of `tensor`. */
  device?: DeviceChoice | undefined;
  /** What the parameters are kept and computed in; default float32. Optimizers keep float32 masters of bfloat16 parameters. */
  dtype?: DType | undefined;
}

/**
 * How a parameter begins. `hidden` and `residual` matrices are those between the embedding and the output layer, of which `residual` ones write
 * to the residual stream; `normal` ones are tables and the output layer.
 */
type Init = "ones" | "zeros" | "normal" | "hidden" | "residual";

export interface ParameterSpec {
  name: string;
  shape: readonly number[];
  init: Init;
}

/** Prefix of a layer's parameters. */
export function layerPrefix(index: number): string {
  return `model.layers.${index}`;
}

/** Whether projections of attention have biases: those of queries, keys and values, and the output's. */
export function attentionBiases({ attentionBias }: ResolvedConfig): { inputs: boolean; output: boolean } {
  return { inputs: attentionBias !== "none", output: attentionBias === "all" };
}

function normSpecs({ norm, normPlusOne }: ResolvedConfig, name: string, size: number): ParameterSpec[] {
  const weight: ParameterSpec = { name: `${name}.weight`, shape: [size], init: normPlusOne ? "zeros" : "ones" };
  return norm === "layer" ? [weight, { name: `${name}.bias`, shape: [size], init: "zeros" }] : [weight];
}

function linearSpecs(name: string, rows: number, columns: number, init: Init, bias: boolean): ParameterSpec[] {
  const weight: ParameterSpec = { name: `${name}.weight`, shape: [rows, columns], init };
  return bias ? [weight, { name: `${name}.bias`, shape: [rows], init: "zeros" }] : [weight];
}

function attentionSpecs(config: ResolvedConfig, index: number, at: string): ParameterSpec[] {
  const { dModel, numHeads, headDim, normPlusOne } = config;
  const { kind, qkNorm, numKvHeads } = config.layers[index]!;
  const { inputs, output } = attentionBiases(config);
  const project = (name: string, heads: number) =>
    linearSpecs(`${at}.${name}_proj`, heads * headDim, dModel, "hidden", inputs);
  const keys = kind === "simplicial" ? ["k", "v", "k2", "v2"] : ["k", "v"];
  const normed = !qkNorm ? [] : kind === "simplicial" ? ["q", "k", "k2"] : ["q", "k"];
  return [
    ...project("q", numHeads),
    ...keys.flatMap((name) => project(name, numKvHeads)),
    ...normed.map((name): ParameterSpec => {
      return { name: `${at}.${name}_norm.weight`, shape: [headDim], init: normPlusOne ? "zeros" : "ones" };
    }),
    ...linearSpecs(`${at}.o_proj`, dModel, numHeads * headDim, "residual", output),
  ];
}

function feedForwardSpecs(config: ResolvedConfig, at: string, width: number, bias: boolean): ParameterSpec[] {
  const { dModel } = config;
  return [
    ...(isGated(config) ? linearSpecs(`${at}.gate_proj`, width, dModel, "hidden", bias) : []),
    ...linearSpecs(`${at}.up_proj`, width, dModel, "hidden", bias),
    ...linearSpecs(`${at}.down_proj`, dModel, width, "residual", bias),
  ];
}

/** The matrices of all experts lie in one tensor, as grouped products take them. */
function expertSpecs(config: ResolvedConfig, experts: ResolvedExperts, at: string): ParameterSpec[] {
  const { dModel } = config;
  const { numExperts, expertDim, sharedDim } = experts;
  const inner = { shape: [numExperts, expertDim, dModel], init: "hidden" as const };
  return [
    { name: `${at}.router.weight`, shape: [numExperts, dModel], init: "hidden" },
    ...(isGated(config) ? [{ name: `${at}.experts.gate_proj`, ...inner }] : []),
    { name: `${at}.experts.up_proj`, ...inner },
    { name: `${at}.experts.down_proj`, shape: [numExperts, dModel, expertDim], init: "residual" },
    ...(sharedDim > 0 ? feedForwardSpecs(config, `${at}.shared_expert`, sharedDim, false) : []),
  ];
}

function layerSpecs(config: ResolvedConfig, index: number): ParameterSpec[] {
  const { dModel, ffnDim, block, feedForwardBias } = config;
  const at = layerPrefix(index);
  const norms = (...names: string[]) => names.flatMap((name) => normSpecs(config, `${at}.${name}_layernorm`, dModel));
  const experts = expertsOf(config, index);
  return [
    ...(block === "post" ? [] : norms("input")),
    ...attentionSpecs(config, index, `${at}.self_attn`),
    ...(block === "parallel" ? [] : norms("post_attention")),
    ...(block === "sandwich" ? norms("pre_feedforward") : []),
    ...(experts === undefined
      ? feedForwardSpecs(config, `${at}.mlp`, ffnDim, feedForwardBias)
      : expertSpecs(config, experts, `${at}.mlp`)),
    ...(block === "sandwich" || block === "post" ? norms("post_feedforward") : []),
  ];
}

/** Names and shapes of all parameters, in the order of the forward pass. */
export function parameterSpecs(config: ResolvedConfig): ParameterSpec[] {
  const { vocabSize, dModel, numLayers, maxSeqLen, positions, tieEmbeddings, block } = config;
  const learned = positions === "learned";
  return [
    { name: "model.embed_tokens.weight", shape: [vocabSize, dModel], init: "normal" },
    ...(learned ? [{ name: "model.embed_positions.weight", shape: [maxSeqLen, dModel], init: "normal" as const }] : []),
    ...Array.from({ length: numLayers }, (_, i) => layerSpecs(config, i)).flat(),
    ...(block === "post" ? [] : normSpecs(config, "model.norm", dModel)),
    ...(tieEmbeddings ? [] : [{ name: "lm_head.weight", shape: [vocabSize, dModel], init: "normal" as const }]),
  ];
}

/** Refuses parameters that are not the model's. @throws {OptionError} naming all that are missing, misshapen or another's */
export function checkParameters(where: string, config: ResolvedConfig, params: Parameters): void {
  const specs = parameterSpecs(config);
  const known = new Set(specs.map(({ name }) => name));
  const problems = specs.flatMap(({ name, shape }) => {
    const received = params[name]?.shape;
    if (received === undefined) return [`"${name}" is missing`];
    const fits = received.length === shape.length && received.every((n, i) => n === shape[i]);
    return fits ? [] : [`"${name}" is [${received.join(", ")}], not [${shape.join(", ")}]`];
  });
  for (const name of Object.keys(params)) if (!known.has(name)) problems.push(`"${name}" is none of them`);
  if (problems.length === 0) return;
  throw new OptionError(`[${where}] the parameters are not the model's: ${problems.join("; ")}.`);
}

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** Number of values in all parameters. */
export function countParameters(config: ResolvedConfig): number {
  return parameterSpecs(config).reduce((n, { shape }) => n + sizeOf(shape), 0);
}

/**
 * Number of values that a token meets: of the experts `topK` instead of all (models.md §8, `active`). Where experts choose, a token meets
 * `topK · capacityFactor` of them on average.
 */
export function countActiveParameters(config: ResolvedConfig): number {
  const part = config.experts === undefined ? 1 : activeShare(config.experts);
  return parameterSpecs(config).reduce((n, { name, shape }) => {
    return n + sizeOf(shape) * (name.includes(".experts.") ? part : 1);
  }, 0);
}

function activeShare({ numExperts, topK, choice, capacityFactor = 1 }: ResolvedExperts): number {
  return Math.min(1, (topK * (choice === "expert" ? capacityFactor : 1)) / numExperts);
}

/** Standard deviation that a matrix begins with. */
function deviation(config: ResolvedConfig, { shape, init }: ParameterSpec): number {
  const { initStd, numLayers, zeroInitResidual, mup } = config;
  if (init === "residual" && zeroInitResidual) return 0;
  if (init === "normal") return initStd;
  if (mup !== undefined) return 1 / Math.sqrt(shape.at(-1)!);
  return init === "residual" ? initStd / Math.sqrt(2 * numLayers) : initStd;
}

/**
 * Fresh parameters: norms are 1 (biases 0), matrices normal with `initStd`, those that write to the residual stream with
 * `initStd / √(2·numLayers)` (models.md §2.6). Each parameter draws from a random stream of its own, so adding a layer leaves the others as
 * they were.
 */
export function initParameters(
  config: ResolvedConfig,
  seed: number,
  { device, dtype = "float32" }: InitOptions = {},
): Parameters {
  const entries = parameterSpecs(config).map((spec, stream) => {
    const { name, shape, init } = spec;
    if (init === "ones") return [name, keep(ones(shape, { device, dtype }))] as const;
    const std = init === "zeros" ? 0 : deviation(config, spec);
    if (std === 0) return [name, keep(zeros(shape, { device, dtype }))] as const;
    return [
      name,
      keep(scope(() => mul(randomNormal({ seed, stream }, shape, { device }), std).astype(dtype))),
    ] as const;
  });
  return Object.fromEntries(entries);
}

/** What the learning rate of each parameter is multiplied by under muP with Adam: `baseWidth / dModel` for hidden matrices, else 1. */
export function learningRateScales(config: ResolvedConfig): Record<string, number> {
  const hidden = 1 / widthRatio(config);
  return Object.fromEntries(
    parameterSpecs(config).map(({ name, init }) => [name, init === "hidden" || init === "residual" ? hidden : 1]),
  );
}
