/** A Hugging Face Llama checkpoint, loaded by its own names, scores and continues as its reference does. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { loadSafetensors, scope, tensor } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { describeGoldenFolder } from "../../../test/golden.js";
import { generate, type Parameters, Transformer } from "../src/index.js";

describeGoldenFolder("tiny-llama", (path) => {
  const read = (name: string) => JSON.parse(readFileSync(join(path, name), "utf8"));
  const config = read("config.json");
  const expected = read("expected.json");
  const model = new Transformer({
    vocabSize: config.vocab_size,
    dModel: config.hidden_size,
    numLayers: config.num_hidden_layers,
    numHeads: config.num_attention_heads,
    numKvHeads: config.num_key_value_heads,
    headDim: config.head_dim,
    ffnDim: config.intermediate_size,
    maxSeqLen: config.max_position_embeddings,
    normEps: config.rms_norm_eps,
    ropeBase: config.rope_parameters.rope_theta,
    tieEmbeddings: config.tie_word_embeddings,
  });
  const load = async (dtype: "float32" | "float64"): Promise<Parameters> => {
    const { tensors } = await loadSafetensors(join(path, "model.safetensors"));
    return Object.fromEntries(Object.entries(tensors).map(([name, weight]) => [name, weight.astype(dtype)]));
  };
  const [B, T] = [expected.input_ids.length, expected.input_ids[0].length];
  const ids: number[] = expected.input_ids.flat();

  it("has as many parameters as the checkpoint", async () => {
    expect(model.parameterCount).toBe(expected.num_parameters);
    expect(Object.keys(await load("float32")).sort()).toEqual(Object.keys(model.init(0)).sort());
  });

  it.each(["float32", "float64"] as const)("scores the tokens in %s", async (dtype) => {
    const tolerance = dtype === "float32" ? expected.tol.f32 : expected.tol.f64;
    const params = await load(dtype);
    const tokens = tensor(Int32Array.from(ids), { shape: [B, T] });
    const logits = scope(() => model.logits(params, tokens).dataSync());
    const worst = expected.logits.data.reduce(
      (most: number, z: number, i: number) => Math.max(most, Math.abs(z - logits[i]!) / (1 + Math.abs(z))),
      0,
    );
    expect(logits).toHaveLength(expected.logits.data.length);
    expect(worst).toBeLessThanOrEqual(tolerance);

    const targets = Int32Array.from(ids, (_, i) => (i % T === T - 1 ? -100 : ids[i + 1]!));
    const batch = { tokens, targets: tensor(targets, { shape: [B, T] }) };
    const loss = scope(() => model.loss(params, batch).itemSync());
    expect(Math.abs(loss - expected.next_token_loss)).toBeLessThanOrEqual(tolerance * (1 + expected.next_token_loss));
  });

  it("continues the prompt greedily as the reference does", async () => {
    const { prompt, output } = expected.greedy;
    const drawn: number[] = [];
    const options = { maxTokens: output.length - prompt.length, temperature: 0 };
    for await (const id of generate(model, await load("float32"), prompt, options)) drawn.push(id);
    expect([...prompt, ...drawn]).toEqual(output);
  });
});
