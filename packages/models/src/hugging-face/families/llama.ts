/** Llama, and the families that differ from it in a few fields: Mistral, Qwen2, Qwen3, Mixtral, Gemma 2. */
import type { ResolvedConfig, TransformerConfig } from "../../config.js";
import type { ParameterSpec } from "../../parameters.js";
import { type Family, likeOurs, readWindows, rotaryBuffers, writeWindows } from "../family.js";
import type { JsonFields, JsonObject } from "../json-fields.js";
import { type ConfigForm, readRope, writeRope } from "../rope-fields.js";
import { renamed, stacked, type TensorMapping } from "../tensor-map.js";

/** Gated feed-forward layers by the names of their activations. */
const activations = {
  silu: "swiglu",
  gelu_pytorch_tanh: "geglu",
  gelu_new: "geglu",
} as const;

function readActivation(fields: JsonFields, name: string): "swiglu" | "geglu" {
  const activation = fields.text(name, "silu");
  if (Object.hasOwn(activations, activation)) return activations[activation as keyof typeof activations];
  return fields.fail(
    `${name} must be one of ${Object.keys(activations).join(", ")}; received ${JSON.stringify(activation)}.`,
  );
}

const activationName = ({ feedForward }: ResolvedConfig) => (feedForward === "geglu" ? "gelu_pytorch_tanh" : "silu");

interface Defaults {
  /** Where head_dim is absent; else the width over the heads. */
  headDim?: number;
  normEps?: number;
  ropeBase?: number;
  tieEmbeddings?: boolean;
}

/** What all of these families have. */
function readCommon(fields: JsonFields, defaults: Defaults = {}): TransformerConfig {
  const { normEps = 1e-6, ropeBase = 10_000, tieEmbeddings = false } = defaults;
  const dModel = fields.count("hidden_size");
  const numHeads = fields.count("num_attention_heads");
  const headDim = fields.count("head_dim", defaults.headDim ?? dModel / numHeads);
  return {
    vocabSize: fields.count("vocab_size"),
    dModel,
    numLayers: fields.multiplicity("num_hidden_layers"),
    numHeads,
    numKvHeads: fields.count("num_key_value_heads", numHeads),
    headDim,
    ffnDim: fields.count("intermediate_size"),
    normEps: fields.number("rms_norm_eps", normEps),
    tieEmbeddings: fields.flag("tie_word_embeddings", tieEmbeddings),
    initStd: fields.number("initializer_range", 0.02),
    ...readRope(fields, headDim, ropeBase),
  };
}

function writeCommon(config: ResolvedConfig, form: ConfigForm): JsonObject {
  return {
    vocab_size: config.vocabSize,
    hidden_size: config.dModel,
    num_hidden_layers: config.layers.length,
    num_attention_heads: config.numHeads,
    num_key_value_heads: config.numKvHeads,
    head_dim: config.headDim,
    intermediate_size: config.ffnDim,
    rms_norm_eps: config.normEps,
    tie_word_embeddings: config.tieEmbeddings,
    initializer_range: config.initStd,
    hidden_act: activationName(config),
    ...writeRope(config, form),
  };
}

const common = { ignored: rotaryBuffers, tensors: (config: ResolvedConfig) => likeOurs(config) };

export const llama: Family = {
  ...common,
  modelType: "llama",
  architecture: "LlamaForCausalLM",
  read: (fields) => ({
    ...readCommon(fields),
    feedForward: readActivation(fields, "hidden_act"),
    attentionBias: fields.flag("attention_bias", false) ? "all" : "none",
    feedForwardBias: fields.flag("mlp_bias", false),
  }),
  write: (config, form) => ({
    ...writeCommon(config, form),
    attention_bias: config.attentionBias === "all",
    mlp_bias: config.feedForwardBias,
  }),
};

export const mistral: Family = {
  ...common,
  modelType: "mistral",
  architecture: "MistralForCausalLM",
  read: (fields) => ({
    ...readCommon(fields),
    feedForward: readActivation(fields, "hidden_act"),
    // No window is null; a configuration without the field has that of the first Mistral.
    attention: readWindows(
      fields,
      fields.json.sliding_window === null ? undefined : fields.count("sliding_window", 4096),
      () => true,
    ),
  }),
  write: (config, form) => ({ ...writeCommon(config, form), sliding_window: writeWindows(config).window }),
};

/** Qwen's windows count only where they are switched on, and without `layer_types` from a layer on. */
function readQwenWindows(fields: JsonFields) {
  if (!fields.flag("use_sliding_window", false)) return readWindows(fields, undefined, () => false);
  const first = fields.has("max_window_layers") ? fields.number("max_window_layers") : 28;
  return readWindows(fields, fields.count("sliding_window", 4096), (layer) => layer >= first);
}

function writeQwenWindows(config: ResolvedConfig): JsonObject {
  const { window, types } = writeWindows(config);
  const first = types.indexOf("sliding_attention");
  return {
    use_sliding_window: window !== null,
    sliding_window: window,
    max_window_layers: first < 0 ? types.length : first,
    layer_types: types,
  };
}

export const qwen2: Family = {
  ...common,
  modelType: "qwen2",
  architecture: "Qwen2ForCausalLM",
  read: (fields) => ({
    ...readCommon(fields),
    feedForward: readActivation(fields, "hidden_act"),
    attentionBias: "qkv",
    attention: readQwenWindows(fields),
  }),
  write: (config, form) => ({ ...writeCommon(config, form), ...writeQwenWindows(config) }),
};

export const qwen3: Family = {
  ...common,
  modelType: "qwen3",
  architecture: "Qwen3ForCausalLM",
  read: (fields) => ({
    ...readCommon(fields, { headDim: 128 }),
    feedForward: readActivation(fields, "hidden_act"),
    attentionBias: fields.flag("attention_bias", false) ? "all" : "none",
    qkNorm: true,
    attention: readQwenWindows(fields),
  }),
  write: (config, form) => ({
    ...writeCommon(config, form),
    ...writeQwenWindows(config),
    attention_bias: config.attentionBias === "all",
  }),
};

/** Mixtral's matrices of an expert: `w1` is the gate, `w3` goes up, `w2` down. */
const expertMatrices: Record<string, string> = { gate_proj: "w1", up_proj: "w3", down_proj: "w2" };

function mixtralTensor({ name, shape }: ParameterSpec): TensorMapping | undefined {
  const [, at, rest] = /^(model\.layers\.\d+)\.mlp\.(.+)$/.exec(name) ?? [];
  if (at === undefined) return undefined;
  const theirs = `${at}.block_sparse_moe`;
  if (rest === "router.weight") return renamed(name, `${theirs}.gate.weight`, shape);
  const matrix = expertMatrices[rest!.replace("experts.", "")];
  const names = Array.from({ length: shape[0]! }, (_, e) => `${theirs}.experts.${e}.${matrix}.weight`);
  return stacked(name, names, shape);
}

export const mixtral: Family = {
  ...common,
  modelType: "mixtral",
  architecture: "MixtralForCausalLM",
  read(fields) {
    const config = readCommon(fields, { normEps: 1e-5, ropeBase: 1e6 });
    const topK = fields.count("num_experts_per_tok", 2);
    const numExperts = fields.multiplicity("num_local_experts", 8);
    return {
      ...config,
      feedForward: readActivation(fields, "hidden_act"),
      attention: readWindows(
        fields,
        fields.has("sliding_window") ? fields.count("sliding_window") : undefined,
        () => true,
      ),
      experts: {
        numExperts,
        topK,
        // Its balancing loss adds up over the k choices and is one for all layers; ours is a mean over choices and adds up over layers.
        auxCoef: (fields.number("router_aux_loss_coef", 0.001) * topK) / config.numLayers,
        jitter: fields.number("router_jitter_noise", 0),
      },
    };
  },
  write: (config, form) => {
    const { numExperts = 0, topK = 1, auxCoef = 0, jitter = 0 } = config.experts ?? {};
    return {
      ...writeCommon(config, form),
      sliding_window: writeWindows(config).window,
      num_local_experts: numExperts,
      num_experts_per_tok: topK,
      // Without the digits that the division above has rounded.
      router_aux_loss_coef: Number(((auxCoef * config.layers.length) / topK).toPrecision(12)),
      router_jitter_noise: jitter,
    };
  },
  tensors: (config) => likeOurs(config, mixtralTensor),
};

export const gemma2: Family = {
  ...common,
  modelType: "gemma2",
  architecture: "Gemma2ForCausalLM",
  read(fields) {
    const config = readCommon(fields, { headDim: 256, tieEmbeddings: true });
    const activation = fields.has("hidden_activation") ? "hidden_activation" : "hidden_act";
    const cap = (name: string, fallback: number) => (fields.json[name] === null ? 0 : fields.number(name, fallback));
    return {
      ...config,
      feedForward: fields.has(activation) ? readActivation(fields, activation) : "geglu",
      attentionBias: fields.flag("attention_bias", false) ? "all" : "none",
      attention: readWindows(fields, fields.count("sliding_window", 4096), (layer) => layer % 2 === 0),
      attentionScale: fields.number("query_pre_attn_scalar", 256) ** -0.5,
      attentionSoftcap: cap("attn_logit_softcapping", 50),
      finalSoftcap: cap("final_logit_softcapping", 30),
      block: "sandwich",
      normPlusOne: true,
      embeddingScale: Math.sqrt(config.dModel),
    };
  },
  write: (config, form) => {
    const { window, types } = writeWindows(config);
    return {
      ...writeCommon(config, form),
      hidden_activation: activationName(config),
      attention_bias: config.attentionBias === "all",
      sliding_window: window,
      layer_types: types,
      query_pre_attn_scalar: Number((config.attentionScale ** -2).toPrecision(12)),
      attn_logit_softcapping: config.attentionSoftcap || null,
      final_logit_softcapping: config.finalSoftcap || null,
    };
  },
};
