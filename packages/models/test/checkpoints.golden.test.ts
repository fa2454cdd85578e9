/** Hugging Face checkpoints, of every folder that has a config.json and an expected.json: scores, loss and greedy text of their reference. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { scope, tensor } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { describeGolden, describeGoldenFolder, goldenFolders } from "../../../test/golden.js";
import { generate, loadHuggingFace } from "../src/index.js";

/** The project's own, which no folder of the run may silently lack. */
const own = ["tiny-gpt2", "tiny-llama", "tiny-mixtral", "tiny-qwen3"];
const found = goldenFolders("config.json", "expected.json");

for (const name of own.filter((folder) => !found.includes(folder))) describeGoldenFolder(name, () => {});

for (const name of found) {
  describeGolden(name, (path) => {
    const expected = JSON.parse(readFileSync(join(path, "expected.json"), "utf8"));
    const [B, T] = [expected.input_ids.length, expected.input_ids[0].length];
    const ids: number[] = expected.input_ids.flat();

    it("has as many parameters as its model", async () => {
      const { model, params } = await loadHuggingFace(path);
      expect(model.parameterCount).toBe(expected.num_parameters);
      expect(Object.keys(params)).toEqual(Object.keys(model.init(0)));
    });

    it.each(["float32", "float64"] as const)("scores the tokens in %s", async (dtype) => {
      const tolerance = dtype === "float32" ? 2e-4 : expected.tol.f64;
      const { model, params } = await loadHuggingFace(path, { dtype });
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
      // The cross-entropy alone: mixtures of experts add their balancing losses.
      const loss = scope(() => model.lossParts(params, batch).ce.itemSync());
      expect(Math.abs(loss - expected.next_token_loss)).toBeLessThanOrEqual(tolerance * (1 + expected.next_token_loss));
    });

    it("continues the prompt greedily as the reference does", async () => {
      const { model, params } = await loadHuggingFace(path, { dtype: "float32" });
      const { prompt, output } = expected.greedy;
      const drawn: number[] = [];
      const options = { maxTokens: output.length - prompt.length, temperature: 0 };
      for await (const id of generate(model, params, prompt, options)) drawn.push(id);
      expect([...prompt, ...drawn]).toEqual(output);
    });
  });
}
