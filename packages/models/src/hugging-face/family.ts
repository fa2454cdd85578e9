import type { LayerAttention } from "../attention-config.js";
import type { ResolvedConfig, TransformerConfig } from "../config.js";
import { type ParameterSpec, parameterSpecs } from "../parameters.js";
import type { JsonFields, JsonObject } from "./json-fields.js";
import type { ConfigForm } from "./rope-fields.js";
import { renamed, type TensorMapping } from "./tensor-map.js";

/** A family of checkpoints: what its config.json means, and how its tensors are called. */
export interface Family {
  /** `model_type` of its config.json. */
  modelType: string;
  /** `architectures` of its config.json. */
  architecture: string;
  read(fields: JsonFields): TransformerConfig;
  /** The fields that `read` reads, of a model that may have more than the family: what doesn't come back is not the family's. */
  write(config: ResolvedConfig, form: ConfigForm): JsonObject;
  tensors(config: ResolvedConfig): TensorMapping[];
  /** Tensors that a checkpoint may hold beside those, which are no parameters. */
  ignored: RegExp;
}

/** Buffers that old versions of transformers saved. */
export const rotaryBuffers = /\.rotary_emb\.inv_freq$/;

/** Parameters under our names, which are those of the Llama family; `other` gives those that have others. */
export function likeOurs(
  config: ResolvedConfig,
  other: (spec: ParameterSpec) => TensorMapping | undefined = () => undefined,
): TensorMapping[] {
  return parameterSpecs(config).map((spec) => other(spec) ?? renamed(spec.name, spec.name, spec.shape));
}

/** Attention of each layer by `layer_types`, or by a rule where the field is absent. */
export function readWindows(
  fields: JsonFields,
  window: number | undefined,
  rule: (layer: number) => boolean,
): LayerAttention[] {
  const numLayers = fields.multiplicity("num_hidden_layers");
  const types = fields.list("layer_types");
  if (types !== undefined && types.length !== numLayers) {
    fields.fail(`layer_types must have ${numLayers} entries, one a layer; received ${types.length}.`);
  }
  return Array.from({ length: numLayers }, (_, i): LayerAttention => {
    const type = types?.[i] ?? (window !== undefined && rule(i) ? "sliding_attention" : "full_attention");
    if (type === "full_attention") return { kind: "dot" };
    if (type !== "sliding_attention") {
      fields.fail(`layer_types must be "full_attention" or "sliding_attention"; received ${JSON.stringify(type)}.`);
    }
    if (window === undefined) fields.fail("layer_types name sliding_attention, but sliding_window is absent.");
    return { kind: "dot", window };
  });
}

/** The window of the layers that have one, and the kind of each layer. Layers with different windows don't come back from it. */
export function writeWindows({ layers }: ResolvedConfig): { window: number | null; types: string[] } {
  const windows = layers.map((layer) => (layer.kind === "dot" ? layer.window : undefined));
  return {
    window: windows.find((window) => window !== undefined) ?? null,
    types: windows.map((window) => (window === undefined ? "full_attention" : "sliding_attention")),
  };
}
