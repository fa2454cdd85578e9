/**
 * Rotary positions in config.json. The old form has `rope_theta` and `rope_scaling` (with `rope_type`, once `type`) at the top, the new one
 * (transformers 5) all of it in `rope_parameters`.
 */
import type { RopeScaling } from "@llmeff/tensor";
import type { ResolvedConfig, TransformerConfig } from "../config.js";
import { isObject, JsonFields, type JsonObject } from "./json-fields.js";

/** How a configuration is written: `old` is read by every version of transformers, `new` by 5 and later. */
export type ConfigForm = "old" | "new";

type RopeConfig = Required<Pick<TransformerConfig, "ropeBase" | "rotaryDim" | "maxSeqLen">> &
  Pick<TransformerConfig, "ropeScaling">;

function parametersOf(fields: JsonFields): JsonFields {
  const { where } = fields;
  const given = fields.object("rope_parameters");
  if (given !== undefined) {
    if (Object.values(given).some(isObject)) {
      fields.fail("rope_parameters that differ by kind of layer are not supported; expected one set for all layers.");
    }
    return new JsonFields({ rope_theta: fields.json.rope_theta, ...given }, `${where}, rope_parameters`);
  }
  const scaling = fields.object("rope_scaling") ?? {};
  const { type, ...others } = scaling;
  const rope_type = others.rope_type ?? type ?? "default";
  return new JsonFields({ rope_theta: fields.json.rope_theta, ...others, rope_type }, `${where}, rope_scaling`);
}

function scalingOf(rope: JsonFields, maxPositions: number): RopeScaling | undefined {
  const type = rope.text("rope_type", "default");
  const factor = () => rope.number("factor");
  const originalLength = () => rope.count("original_max_position_embeddings", maxPositions);
  const optional = (name: string, key: string) => (rope.has(key) ? { [name]: rope.number(key) } : {});
  switch (type) {
    case "default":
      return undefined;
    case "linear":
      return { type, factor: factor() };
    case "dynamic":
      return { type, factor: factor(), originalLength: maxPositions };
    case "yarn":
      return {
        type,
        factor: factor(),
        originalLength: originalLength(),
        ...optional("betaFast", "beta_fast"),
        ...optional("betaSlow", "beta_slow"),
        ...optional("attentionFactor", "attention_factor"),
        ...optional("mscale", "mscale"),
        ...optional("mscaleAllDim", "mscale_all_dim"),
        ...(rope.has("truncate") ? { truncate: rope.flag("truncate") } : {}),
      };
    case "llama3":
      return {
        type,
        factor: factor(),
        originalLength: originalLength(),
        lowFrequencyFactor: rope.number("low_freq_factor"),
        highFrequencyFactor: rope.number("high_freq_factor"),
      };
    default:
      return rope.fail(
        `rope_type must be one of default, linear, dynamic, yarn, llama3; received ${JSON.stringify(type)}.`,
      );
  }
}

/**
 * Rotary positions by either form, and the longest sequence: `max_position_embeddings`, or as many times the original length as the scaling
 * stretches it to where that field still states the original one.
 */
export function readRope(fields: JsonFields, headDim: number, defaultBase: number): RopeConfig {
  const maxPositions = fields.count("max_position_embeddings");
  const rope = parametersOf(fields);
  const ropeScaling = scalingOf(rope, maxPositions);
  const share = rope.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1));
  const stretched =
    (ropeScaling?.type === "dynamic" || ropeScaling?.type === "yarn") && ropeScaling.originalLength === maxPositions;
  return {
    ropeBase: rope.number("rope_theta", defaultBase),
    rotaryDim: Math.floor(headDim * share),
    maxSeqLen: stretched ? Math.floor(maxPositions * ropeScaling.factor) : maxPositions,
    ...(ropeScaling === undefined ? {} : { ropeScaling }),
  };
}

function scalingFields(scaling: RopeScaling): JsonObject {
  const { type: rope_type, factor } = scaling;
  if (scaling.type === "yarn") {
    const { originalLength, betaFast, betaSlow, attentionFactor, mscale, mscaleAllDim, truncate } = scaling;
    const optional = {
      beta_fast: betaFast,
      beta_slow: betaSlow,
      attention_factor: attentionFactor,
      mscale,
      mscale_all_dim: mscaleAllDim,
      truncate,
    };
    const given = Object.entries(optional).filter(([, value]) => value !== undefined);
    return { rope_type, factor, original_max_position_embeddings: originalLength, ...Object.fromEntries(given) };
  }
  if (scaling.type === "llama3") {
    const { originalLength, lowFrequencyFactor, highFrequencyFactor } = scaling;
    return {
      rope_type,
      factor,
      original_max_position_embeddings: originalLength,
      low_freq_factor: lowFrequencyFactor,
      high_freq_factor: highFrequencyFactor,
    };
  }
  return { rope_type, factor };
}

/** The fields of rotary positions. */
export function writeRope(config: ResolvedConfig, form: ConfigForm): JsonObject {
  const { ropeBase: rope_theta, ropeScaling, rotaryDim, headDim, maxSeqLen } = config;
  const partial = rotaryDim === headDim ? {} : { partial_rotary_factor: rotaryDim / headDim };
  const original =
    ropeScaling?.type === "dynamic" ||
    (ropeScaling?.type === "yarn" && Math.floor(ropeScaling.originalLength * ropeScaling.factor) === maxSeqLen);
  const max_position_embeddings = original ? ropeScaling.originalLength : maxSeqLen;
  if (form === "new") {
    const scaling = ropeScaling === undefined ? { rope_type: "default" } : scalingFields(ropeScaling);
    return { max_position_embeddings, rope_parameters: { rope_theta, ...scaling, ...partial } };
  }
  const rope_scaling = ropeScaling === undefined ? null : scalingFields(ropeScaling);
  return { max_position_embeddings, rope_theta, rope_scaling, ...partial };
}
