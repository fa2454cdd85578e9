/** A small student and a smaller teacher on a text with structure, for runs of a few steps. */
import { TokenDataset } from "@llmeff/data";
import { Transformer } from "@llmeff/models";
import { AdamW } from "@llmeff/optim";
import type { Tensor } from "@llmeff/tensor";
import { type StepEvent, type TrainOptions, train } from "@llmeff/train";
import { type Parameters, tokenModel } from "../src/index.js";

export const vocabSize = 13;
export const seqLen = 10;

export const studentModel = new Transformer({ vocabSize, dModel: 16, numLayers: 1, numHeads: 2, maxSeqLen: 16 });
export const teacherModel = new Transformer({
  vocabSize,
  dModel: 8,
  numLayers: 1,
  numHeads: 2,
  maxSeqLen: 16,
  tieEmbeddings: true,
  finalSoftcap: 10,
});
export const student = tokenModel(studentModel);
export const teacherOf = (seed = 7) => ({ model: tokenModel(teacherModel), params: teacherModel.init(seed) });

/** Each token is a fixed function of the two before it, now and then of the place. */
export function text(length = 700): Uint8Array {
  const tokens = new Uint8Array(length);
  for (let i = 2; i < length; i++)
    tokens[i] = (tokens[i - 1]! + 2 * tokens[i - 2]! + (i % 29 === 0 ? 3 : 1)) % vocabSize;
  return tokens;
}

export const textData = (batchSize = 4) => new TokenDataset(text(), { seqLen, batchSize, seed: 3 });

/** Trains a student from seed 1, and parameters beside its own. @returns the events of its steps and the parameters' bits */
export async function trained(
  { more = {}, ...options }: Omit<TrainOptions, "params" | "optimizer"> & { more?: Parameters },
  eachStep?: (event: StepEvent) => Promise<void>,
) {
  const params = { ...studentModel.init(1), ...more };
  const optimizer = new AdamW(params, { learningRate: 5e-3, maxGradNorm: 1 });
  const losses: [step: number, loss: number][] = [];
  for await (const event of train({ clock: () => 0, ...options, params, optimizer })) {
    if (event.type !== "step") continue;
    losses.push([event.step, event.loss]);
    await eachStep?.(event);
  }
  const bits = await bitsOf(params);
  disposeAll(params);
  optimizer.dispose();
  return { losses, bits };
}

export async function bitsOf(params: Parameters): Promise<Record<string, string>> {
  const entries = Object.entries(params).map(
    async ([name, value]) => [name, Buffer.from((await value.data()).buffer).toString("hex")] as const,
  );
  return Object.fromEntries(await Promise.all(entries));
}

export function disposeAll(tensors: Record<string, Tensor>): void {
  for (const one of Object.values(tensors)) one.dispose();
}
