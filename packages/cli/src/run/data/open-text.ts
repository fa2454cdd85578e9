/** One text in memory, read in windows; its end is held out. */
import { dirname, resolve } from "node:path";
import { readText, sequentialWindows, splitTokens, TokenDataset } from "@llmeff/data";
import type { DataOf } from "../../config/data-schema.js";
import { UsageError } from "../../errors.js";
import { defined } from "../defined.js";
import type { OpenDataOptions, OpenedData } from "./open-data.js";
import { openTokenizer } from "./open-tokenizer.js";
import { textBytes } from "./text-bytes.js";

export async function openText(
  data: DataOf<"text">,
  { configFile, seed, evaluateWindows, signal }: OpenDataOptions,
): Promise<OpenedData> {
  const { seqLen, batchSize, validFraction = 0.1 } = data;
  const path = resolve(dirname(configFile), data.path);
  const text = await readText(path, defined({ signal }));
  const tokenizer = await openTokenizer(data.tokenizer, dirname(configFile), async () => [text]);
  const ids = tokenizer.encode(text);
  const { train, valid } = splitTokens(ids, validFraction);
  if (train.length <= seqLen || valid.length < 2) {
    throw new UsageError(
      `[${configFile}] data.seqLen: ${path} has ${ids.length} tokens, of which ${train.length} are for training; ` +
        `a sequence needs ${seqLen + 1}. Take a longer text or a smaller seqLen.`,
    );
  }
  const batches = sequentialWindows(valid, { seqLen, batchSize, maxWindows: evaluateWindows });
  const bytes = textBytes(tokenizer, valid.subarray(0, batches.targetCount + 1));
  return {
    train: new TokenDataset(train, { seqLen, batchSize, seed }),
    valid: { metric: "validationLoss", causal: { text: { batches, bytes } }, objectives: {} },
    vocabSize: tokenizer.vocabSize,
    seqLen,
    tokenizer,
    stopTokens: [],
    close: async () => {},
  };
}
