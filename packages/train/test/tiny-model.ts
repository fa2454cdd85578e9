/** A small real model from tensor ops: embeddings, one layer of 2-simplicial attention with a residual, and a linear head. */
import { type Batch, TokenDataset } from "@llmeff/data";
import { AdamW, type Optimizer, Sonew } from "@llmeff/optim";
import {
  add,
  crossEntropy,
  crossEntropyParts,
  embedding,
  linear,
  randomNormal,
  reshape,
  rmsNorm,
  scope,
  simplicialAttention,
  type Tensor,
} from "@llmeff/tensor";
import type { TrainBatch } from "../src/index.js";

export const vocabSize = 11;
export const seqLen = 12;
const width = 16;
const numHeads = 2;

type Params = Record<string, Tensor>;

export function tinyParams(seed = 1, dtype: "float32" | "float64" = "float32"): Params {
  const shapes: [string, number[]][] = [
    ["embed.weight", [vocabSize, width]],
    ["position.weight", [seqLen, width]],
    ...["q", "k1", "k2", "v1", "v2", "o"].map((name): [string, number[]] => [`attn.${name}.weight`, [width, width]]),
    ["norm.weight", [width]],
    ["head.weight", [vocabSize, width]],
  ];
  return scope(() =>
    Object.fromEntries(
      shapes.map(([name, shape], stream) => {
        const noise = randomNormal({ seed, stream }, shape, { dtype });
        return [name, shape.length === 1 ? noise.mul(0).add(1) : noise.mul(0.25)];
      }),
    ),
  );
}

/** `[B, T, V]` */
export function tinyLogits(params: Params, { tokens }: TrainBatch): Tensor {
  const [B, T] = tokens.shape as [number, number];
  const x = add(embedding(params["embed.weight"]!, tokens), params["position.weight"]!);
  const h = rmsNorm(x, params["norm.weight"]!);
  const project = (name: string) =>
    reshape(linear(h, params[`attn.${name}.weight`]!), [B, T, numHeads, width / numHeads]);
  const [q, k1, k2, v1, v2] = ["q", "k1", "k2", "v1", "v2"].map(project) as [Tensor, Tensor, Tensor, Tensor, Tensor];
  const attended = simplicialAttention(q, k1, k2, v1, v2, { w1: 8, w2: 4 });
  const y = add(x, linear(reshape(attended, [B, T, width]), params["attn.o.weight"]!));
  return linear(y, params["head.weight"]!);
}

export function tinyLoss(params: Params, batch: TrainBatch): Tensor {
  return crossEntropy(tinyLogits(params, batch), batch.targets);
}

export function tinyLossPerToken(params: Params, batch: TrainBatch): Tensor {
  return crossEntropyParts(tinyLogits(params, batch), batch.targets).perToken;
}

/** A sequence with structure to learn: each token is a fixed function of the two before it, now and then of the place. */
export function tinyTokens(length = 3000): Uint8Array {
  const tokens = new Uint8Array(length);
  for (let i = 2; i < length; i++)
    tokens[i] = (tokens[i - 1]! + 2 * tokens[i - 2]! + (i % 29 === 0 ? 3 : 1)) % vocabSize;
  return tokens;
}

export function tinyData(batchSize = 8, seed = 3): TokenDataset {
  return new TokenDataset(tinyTokens(), { seqLen, batchSize, seed });
}

export const optimizerNames = ["adamw", "sonew"] as const;

export function tinyOptimizer(name: (typeof optimizerNames)[number], params: Params): Optimizer {
  if (name === "adamw") return new AdamW(params, { learningRate: 5e-3, maxGradNorm: 1 });
  return new Sonew(params, { learningRate: 5e-3, maxGradNorm: 1 });
}

export function disposeTensors(params: Params): void {
  for (const tensor of Object.values(params)) tensor.dispose();
}

/** All values as bytes in hexadecimal, so that equal strings mean equal bits. */
export async function bitsOf(params: Params): Promise<Record<string, string>> {
  const entries = Object.entries(params).map(async ([name, tensor]) => {
    const { buffer } = await tensor.data();
    return [name, Buffer.from(buffer).toString("hex")] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

/** A batch with the given targets, tokens 0. */
export function batchOf(targets: readonly (readonly number[])[]): Batch {
  const flat = Int32Array.from(targets.flat());
  return {
    tokens: new Int32Array(flat.length),
    targets: flat,
    batchSize: targets.length,
    seqLen: targets[0]!.length,
  };
}
