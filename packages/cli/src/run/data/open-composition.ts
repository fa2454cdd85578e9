/** The generated task of composing relations: new samples for ever. */
import { RelationComposition } from "@llmeff/data";
import { type DataOf, seqLenOf } from "../../config/data-schema.js";
import type { OpenDataOptions, OpenedData } from "./open-data.js";

export function openComposition(
  data: DataOf<"relationComposition">,
  { seed, evaluateWindows }: OpenDataOptions,
): OpenedData {
  const { size, batchSize, encoding = "tagged" } = data;
  const train = new RelationComposition({ size, batchSize, encoding, seed });
  const valid = new RelationComposition({ size, batchSize, encoding, seed, split: "valid" });
  return {
    train,
    valid: { metric: "accuracy", answers: valid.first(evaluateWindows) },
    vocabSize: train.vocabSize,
    seqLen: seqLenOf(data),
    tokenizer: undefined,
    stopTokens: [],
    close: async () => {},
  };
}
