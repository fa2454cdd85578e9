const names: Record<string, string> = {
  embed: "model.embed_tokens",
  norm: "model.norm",
  head: "lm_head",
  ln1: "input_layernorm",
  ln2: "post_attention_layernorm",
  wq: "self_attn.q_proj",
  wk: "self_attn.k_proj",
  wv: "self_attn.v_proj",
  wo: "self_attn.o_proj",
  wg: "mlp.gate_proj",
  wu: "mlp.up_proj",
  wd: "mlp.down_proj",
};

/** The short name of a parameter in models.json as a Hugging Face checkpoint has it: `l0.wq` is `model.layers.0.self_attn.q_proj.weight`. */
export function parameterName(short: string): string {
  const [, layer, part] = /^l(\d+)\.(\w+)$/.exec(short) ?? [];
  return layer === undefined ? `${names[short]}.weight` : `model.layers.${layer}.${names[part!]}.weight`;
}
