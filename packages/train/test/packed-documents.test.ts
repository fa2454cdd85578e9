/** Rows packed by @llmeff/data through the attention of @llmeff/tensor: each sequence has the scores that it has alone. */
import { DocumentBatches, documentSet, type ObjectivePreset, shuffledDocuments } from "@llmeff/data";
import { attention, embedding, linear, randomNormal, ropeTables, scope, type Tensor, tensor } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { tensorsOf } from "../src/gradients.js";
import type { TrainBatch } from "../src/index.js";

const [V, C, H, seqLen] = [60, 16, 2, 40];
const weights = Object.fromEntries(
  ["embed", "q", "k", "v", "head"].map((name, stream) => {
    const rows = name === "embed" || name === "head" ? V : C;
    return [name, randomNormal({ seed: 2, stream }, [rows, C], { dtype: "float64" })] as const;
  }),
) as Record<string, Tensor>;

/** One layer of attention with rotary positions, which depend on differences only and so need not restart. */
function logits({ tokens, extras: { documents, prefix } }: Pick<TrainBatch, "tokens" | "extras">): Tensor {
  const [B, T] = tokens.shape as [number, number];
  const x = embedding(weights.embed!, tokens);
  const heads = (name: string) => linear(x, weights[name]!).reshape([B, T, H, C / H]);
  const rope = ropeTables(T, C / H, { dtype: "float64" });
  const masks = { ...(documents && { documents }), ...(prefix && { prefix }) };
  const attended = attention(heads("q"), heads("k"), heads("v"), { ...masks, rope });
  return linear(attended.reshape([B, T, C]), weights.head!);
}

it.each(["causal", "ul2", "palm2-like"] as ObjectivePreset[])(
  "packs %s sequences without mixing them",
  async (objectives) => {
    const documents = documentSet(
      Array.from({ length: 30 }, (_, d) => Array.from({ length: 3 + ((7 * d) % 25) }, (_, i) => (d + i * i) % 30)),
    );
    const data = new DocumentBatches(shuffledDocuments(documents), {
      ...{ seqLen, batchSize: 6, objectives, bos: 31, eos: 32, padding: 33 },
      sentinels: { first: 59, count: 20 },
    });
    const batch = await data.next();
    const [numbers, prefixes] = ["documents", "prefix"].map((name) => batch.extras![name]!.data);
    let compared = 0;
    scope(() => {
      const packed = logits(tensorsOf(batch, weights)).dataSync();
      for (let at = 0; at < numbers!.length; ) {
        let end = at + 1;
        while (end % seqLen !== 0 && numbers![end] === numbers![at]) end++;
        if (numbers![at]! >= 0) {
          const tokens = tensor(batch.tokens.slice(at, end), { shape: [1, end - at] });
          const prefix = tensor(Int32Array.of(prefixes![at]!));
          const alone = logits({ tokens, extras: { prefix } }).dataSync();
          const apart = alone.map((z, i) => Math.abs(z - packed[at * V + i]!));
          expect(Math.max(...apart)).toBeLessThan(1e-12);
          compared += 1;
        }
        at = end;
      }
    });
    expect(compared).toBeGreaterThan(9);
  },
);
