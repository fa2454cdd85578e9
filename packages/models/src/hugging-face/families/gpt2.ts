/** GPT-2: layer norms, learned positions, biases everywhere, and matrices stored as `[in, out]`. */
import { type ParameterSpec, parameterSpecs } from "../../parameters.js";
import type { Family } from "../family.js";
import type { JsonFields } from "../json-fields.js";
import { joined, renamed, type TensorMapping, transposed } from "../tensor-map.js";

const activations = { gelu_new: "gelu", gelu_pytorch_tanh: "gelu", gelu: "geluErf" } as const;

function readActivation(fields: JsonFields): "gelu" | "geluErf" {
  const activation = fields.text("activation_function", "gelu_new");
  if (Object.hasOwn(activations, activation)) return activations[activation as keyof typeof activations];
  return fields.fail(
    `activation_function must be one of ${Object.keys(activations).join(", ")}; received ${JSON.stringify(activation)}.`,
  );
}

/** Its names of the parts of a block. */
const parts: Record<string, string> = {
  input_layernorm: "ln_1",
  post_attention_layernorm: "ln_2",
  "self_attn.o_proj": "attn.c_proj",
  "mlp.up_proj": "mlp.c_fc",
  "mlp.down_proj": "mlp.c_proj",
};

const outside: Record<string, string> = {
  "model.embed_tokens.weight": "transformer.wte.weight",
  "model.embed_positions.weight": "transformer.wpe.weight",
  "model.norm.weight": "transformer.ln_f.weight",
  "model.norm.bias": "transformer.ln_f.bias",
};

/** Queries, keys and values lie side by side: one tensor holds all three, which the query's name stands for here. */
function mapping({ name, shape }: ParameterSpec, shapes: ReadonlyMap<string, readonly number[]>): TensorMapping[] {
  const [, layer, part, kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  if (layer === undefined) return [renamed(name, outside[name] ?? name, shape)];
  const projection = /^self_attn\.([qkv])_proj$/.exec(part!)?.[1];
  if (projection !== undefined) {
    if (projection !== "q") return [];
    const ours = ["q", "k", "v"].map((one) => `model.layers.${layer}.self_attn.${one}_proj.${kind}`);
    const theirs = `transformer.h.${layer}.attn.c_attn.${kind}`;
    return [
      joined(
        ours,
        theirs,
        ours.map((one) => shapes.get(one)!),
      ),
    ];
  }
  const theirs = `transformer.h.${layer}.${parts[part!]}.${kind}`;
  return [shape.length === 2 ? transposed(name, theirs, shape) : renamed(name, theirs, shape)];
}

export const gpt2: Family = {
  modelType: "gpt2",
  architecture: "GPT2LMHeadModel",
  // Masks that old versions of transformers saved.
  ignored: /\.attn\.(?:bias|masked_bias)$/,
  read(fields) {
    fields.only("add_cross_attention", false);
    fields.only("scale_attn_by_inverse_layer_idx", false);
    const dModel = fields.count("n_embd");
    const numHeads = fields.count("n_head");
    return {
      vocabSize: fields.count("vocab_size"),
      dModel,
      numLayers: fields.multiplicity("n_layer"),
      numHeads,
      ffnDim: fields.count("n_inner", 4 * dModel),
      maxSeqLen: fields.count("n_positions"),
      normEps: fields.number("layer_norm_epsilon", 1e-5),
      initStd: fields.number("initializer_range", 0.02),
      tieEmbeddings: fields.flag("tie_word_embeddings", true),
      ...(fields.flag("scale_attn_weights", true) ? {} : { attentionScale: 1 }),
      feedForward: readActivation(fields),
      feedForwardBias: true,
      attentionBias: "all",
      norm: "layer",
      positions: "learned",
    };
  },
  write: (config) => ({
    vocab_size: config.vocabSize,
    n_embd: config.dModel,
    n_layer: config.layers.length,
    n_head: config.numHeads,
    n_inner: config.ffnDim,
    n_positions: config.maxSeqLen,
    layer_norm_epsilon: config.normEps,
    initializer_range: config.initStd,
    tie_word_embeddings: config.tieEmbeddings,
    scale_attn_weights: config.attentionScale !== 1,
    activation_function: config.feedForward === "geluErf" ? "gelu" : "gelu_new",
  }),
  tensors: (config) => {
    const specs = parameterSpecs(config);
    const shapes = new Map(specs.map(({ name, shape }) => [name, shape]));
    return specs.flatMap((spec) => mapping(spec, shapes));
  },
};
