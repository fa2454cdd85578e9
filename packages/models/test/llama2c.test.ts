/** stories260K, a real model, against the reference values that came with it; and its file written again. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { scope, tensor } from "@llmeff/tensor";
import { beforeAll, describe, expect, it } from "vitest";
import {
  generate,
  loadHuggingFace,
  loadLlama2c,
  type Parameters,
  saveHuggingFace,
  saveLlama2c,
  Transformer,
} from "../src/index.js";
import { temporaryFolder } from "./temporary-folder.js";

const folder = join(import.meta.dirname, "../../../datasets/stories260K");
const file = join(folder, "stories260K.bin");
const golden = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));

describe("loadLlama2c", () => {
  let model: Transformer;
  let params: Parameters;
  beforeAll(async () => {
    ({ model, params } = await loadLlama2c(file));
  });
  const row = (ids: number[]) => tensor(Int32Array.from(ids), { shape: [1, ids.length] });

  it("gives the model of the file", () => {
    expect(model.parameterCount).toBe(260_032);
    expect(Object.keys(params)).toEqual(Object.keys(model.init(0)));
  });

  it("embeds and scores as the reference", () => {
    const { prefix, embedding_sum } = golden.layer0_probe;
    const table = params["model.embed_tokens.weight"]!.dataSync();
    const sum = prefix
      .flatMap((id: number) => [...table.slice(64 * id, 64 * (id + 1))])
      .reduce((a: number, b: number) => a + b, 0);
    expect(sum).toBeCloseTo(embedding_sum, 4);
    for (const { prefix, logits } of golden.logits_after_prefix) {
      const scores = scope(() => model.lastLogits(params, row(prefix)).dataSync());
      for (const [i, want] of logits.entries()) expect(Math.abs(scores[i]! - want)).toBeLessThan(1e-3);
    }
  });

  it("writes its greedy text token for token, with the loss of each", async () => {
    const drawn: number[] = [1];
    const options = { maxTokens: golden.greedy_ids.length - 1, temperature: 0 };
    for await (const id of generate(model, params, [1], options)) drawn.push(id);
    expect(drawn).toEqual(golden.greedy_ids);
    const count = golden.nll_of_greedy_first32.length;
    const batch = { tokens: row(drawn.slice(0, count)), targets: row(drawn.slice(1, count + 1)) };
    const losses = scope(() => model.lossParts(params, batch).perToken.dataSync());
    for (const [i, want] of golden.nll_of_greedy_first32.entries())
      expect(Math.abs(losses[i]! - want)).toBeLessThan(1e-3);
  });

  it("is a Llama like any other: as a Hugging Face folder and back it scores the same, to the bit", async () => {
    const place = join(temporaryFolder(), "stories");
    await saveHuggingFace(place, model, params);
    const back = await loadHuggingFace(place);
    expect(back.source.model_type).toBe("llama");
    const scores = (m: Transformer, p: Parameters) => scope(() => [...m.logits(p, row([1, 403, 407])).dataSync()]);
    expect(scores(back.model, back.params)).toEqual(scores(model, params));
    const copy = join(temporaryFolder(), "again.bin");
    await saveLlama2c(copy, back.model, back.params);
    const [original, written] = [readFileSync(file), readFileSync(copy)];
    const weights = 28 + 4 * model.parameterCount;
    expect(written.length).toBe(original.length);
    expect(written.subarray(0, weights).equals(original.subarray(0, weights))).toBe(true);
    for (let at = weights; at < original.length; at += 4)
      expect(Math.abs(written.readFloatLE(at) - original.readFloatLE(at))).toBeLessThan(1e-4);
  });

  it("keeps an output layer of its own", async () => {
    const untied = new Transformer({
      vocabSize: 9,
      dModel: 8,
      numLayers: 2,
      numHeads: 2,
      numKvHeads: 1,
      ffnDim: 12,
      maxSeqLen: 6,
    });
    const weights = untied.init(1);
    const path = join(temporaryFolder(), "untied.bin");
    await saveLlama2c(path, untied, weights);
    const back = await loadLlama2c(path);
    expect(back.model.config).toEqual(untied.config);
    for (const [name, x] of Object.entries(weights))
      expect([...back.params[name]!.dataSync()], name).toEqual([...x.dataSync()]);
  });

  it.each([
    ["a file cut short", (bytes: Buffer) => bytes.subarray(0, 5000), /needs 1056540 bytes; the file has 5000/],
    ["a few bytes", (bytes: Buffer) => bytes.subarray(0, 12), /at least 28 bytes; received 12/],
    ["a text", () => Buffer.from("This is no model, but a text of some length."), /Is it a model of llama2.c\?/],
    ["heads that don't divide", (bytes: Buffer) => Buffer.from(bytes).fill(3, 12, 13), /describe no model: .*headDim/],
  ])("refuses %s", async (_what, change, message) => {
    const path = join(temporaryFolder(), "model.bin");
    writeFileSync(path, change(readFileSync(file)));
    await expect(loadLlama2c(path)).rejects.toThrow(message);
  });

  it("is not written of what the format can't state", async () => {
    const path = join(temporaryFolder(), "model.bin");
    const other = new Transformer({ vocabSize: 9, dModel: 8, numLayers: 1, numHeads: 2, maxSeqLen: 6, qkNorm: true });
    await expect(saveLlama2c(path, other, other.init(1))).rejects.toThrow(/can't state layers of this model/);
    const { "model.norm.weight": _, ...fewer } = params;
    await expect(saveLlama2c(path, model, fewer)).rejects.toThrow(
      /\[saveLlama2c\] the parameters are not the model's: "model.norm.weight" is missing/,
    );
    await expect(saveLlama2c(join(path, "no", "folder"), model, params)).rejects.toThrow(/Nothing was changed/);
  });
});
