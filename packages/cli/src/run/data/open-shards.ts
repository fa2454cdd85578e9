/** Token shards on a disk, read in windows over all their documents one after the other. */
import { dirname, resolve } from "node:path";
import { ShardWindows, sequentialWindows } from "@llmeff/data";
import type { DataOf } from "../../config/data-schema.js";
import { UsageError } from "../../errors.js";
import type { OpenDataOptions, OpenedData } from "./open-data.js";
import { readAhead } from "./read-ahead.js";
import { textBytes } from "./text-bytes.js";
import { openTokenFolder } from "./token-folder.js";

export async function openShards(
  data: DataOf<"shards">,
  { configFile, seed, evaluateWindows }: OpenDataOptions,
): Promise<OpenedData> {
  const { seqLen, batchSize } = data;
  const folder = resolve(dirname(configFile), data.path);
  const { tokenizer, train, valid, vocabSize, eos, close } = await openTokenFolder(folder);
  try {
    if (train.tokenCount <= seqLen || valid.tokenCount < 2) {
      throw new UsageError(
        `[${configFile}] data.seqLen: ${folder} has ${train.tokenCount} tokens for training and ${valid.tokenCount} held out; ` +
          `a sequence needs ${seqLen + 1}. Take a larger corpus or a smaller seqLen.`,
      );
    }
    const ids = await valid.read(0, Math.min(valid.tokenCount, evaluateWindows * seqLen + 1));
    const batches = sequentialWindows(ids, { seqLen, batchSize });
    return {
      train: readAhead(new ShardWindows(train, { seqLen, batchSize, seed })),
      valid: {
        metric: "validationLoss",
        causal: { shards: { batches, bytes: textBytes(tokenizer, ids) } },
        objectives: {},
      },
      ...{ vocabSize, seqLen, tokenizer, stopTokens: [eos], close },
    };
  } catch (error) {
    await close();
    throw error;
  }
}
