/** A Hugging Face checkpoint, read and written again. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { describeGoldenFolder } from "../../../test/golden.js";
import { decodeSafetensors, encodeSafetensors, loadSafetensors } from "../src/index.js";
import { expectSameBits } from "./compare.js";

describeGoldenFolder("tiny-llama", (path) => {
  it("reads tiny-llama as its configuration describes it", async () => {
    const read = (name: string) => JSON.parse(readFileSync(join(path, name), "utf8"));
    const config = read("config.json");
    const { tensors, metadata } = await loadSafetensors(join(path, "model.safetensors"));
    expect(metadata).toEqual({ format: "pt" });
    const {
      hidden_size: C,
      intermediate_size: F,
      vocab_size: V,
      head_dim: D,
      num_attention_heads: H,
      num_key_value_heads: K,
    } = config;
    const layer = {
      "input_layernorm.weight": [C],
      "post_attention_layernorm.weight": [C],
      "mlp.gate_proj.weight": [F, C],
      "mlp.up_proj.weight": [F, C],
      "mlp.down_proj.weight": [C, F],
      "self_attn.q_proj.weight": [H * D, C],
      "self_attn.k_proj.weight": [K * D, C],
      "self_attn.v_proj.weight": [K * D, C],
      "self_attn.o_proj.weight": [C, H * D],
    };
    const shapes: Record<string, number[]> = {
      "model.embed_tokens.weight": [V, C],
      "model.norm.weight": [C],
      "lm_head.weight": [V, C],
    };
    for (let i = 0; i < config.num_hidden_layers; i++) {
      for (const [name, shape] of Object.entries(layer)) shapes[`model.layers.${i}.${name}`] = shape;
    }
    expect(Object.fromEntries(Object.entries(tensors).map(([name, { shape }]) => [name, shape]))).toEqual(shapes);
    const all = Object.values(tensors);
    expect(new Set(all.map(({ dtype }) => dtype))).toEqual(new Set(["float32"]));
    expect(all.reduce((n, { size }) => n + size, 0)).toBe(read("expected.json").num_parameters);
    expect(all.every((x) => x.dataSync().every(Number.isFinite))).toBe(true);
    // The same bytes come out again, but for the header's padding and order of keys.
    const again = decodeSafetensors(await encodeSafetensors(tensors, metadata)).tensors;
    for (const [name, x] of Object.entries(tensors)) expectSameBits(again[name]!.dataSync(), x.dataSync(), name);
  });
});
