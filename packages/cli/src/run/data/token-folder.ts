/** Token shards with what a training must know of them, as `llmeff tokenize` writes them: `train-*` and `valid-*` beside `corpus.json`. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import {
  createTokenizer,
  type DocumentSet,
  openTokenShards,
  type Tokenizer,
  type TokenizerSpec,
  type TokenShards,
} from "@llmeff/data";
import { FormatError } from "@llmeff/native/errors";
import { z } from "zod";
import { readConfig } from "../../config/read-config.js";
import { UsageError } from "../../errors.js";
import type { Side } from "./source-documents.js";

export const corpusFile = "corpus.json";

const count = z.number().int().nonnegative();
const corpusSchema = z.object({
  tokenizer: z.custom<TokenizerSpec>((value) => typeof value === "object" && value !== null),
  /** Ends every document. */
  eos: count,
  /** One more than the largest id. */
  vocabSize: count,
  documents: z.object({ train: count, valid: count }),
  tokens: z.object({ train: count, valid: count }),
});
export type Corpus = z.infer<typeof corpusSchema>;

/** Whether `llmeff tokenize` gives a file such a name, or did before it was renamed. */
export const isOfCorpus = (name: string) =>
  /^(?:train|valid)-\d{5,}\.(?:bin|idx)(?:\.partial)?$/.test(name) || name.startsWith(corpusFile);

export interface TokenFolder extends Pick<Corpus, "eos" | "vocabSize"> {
  tokenizer: Tokenizer;
  train: TokenShards;
  valid: TokenShards;
  close(): Promise<void>;
}

/** @throws {IoError | FormatError | UsageError} if the folder isn't one, or lacks shards */
export async function openTokenFolder(folder: string): Promise<TokenFolder> {
  const {
    tokenizer: spec,
    eos,
    vocabSize,
    documents,
    tokens,
  } = await readConfig(join(folder, corpusFile), corpusSchema);
  const tokenizer = createTokenizer(spec);
  const files = await readdir(folder);
  const open = async (side: Side) => {
    const names = files.filter((name) => name.startsWith(`${side}-`) && name.endsWith(".idx")).sort();
    if (names.length === 0) {
      throw new UsageError(
        `[llmeff] ${folder} has no shards ${side}-*.idx. Write the folder anew with llmeff tokenize.`,
      );
    }
    const shards = await openTokenShards(names.map((name) => join(folder, name)));
    if (shards.count === documents[side] && shards.tokenCount === tokens[side]) return shards;
    await shards.close();
    throw new FormatError(
      `[llmeff] ${folder} has ${shards.count} documents (${shards.tokenCount} tokens) in ${names.length} shards ${side}-*.idx; ` +
        `its ${corpusFile} tells of ${documents[side]} (${tokens[side]}). Copy all of its files again.`,
    );
  };
  const train = await open("train");
  try {
    const valid = await open("valid");
    const close = async () => {
      await train.close();
      await valid.close();
    };
    return { tokenizer, eos, vocabSize, train, valid, close };
  } catch (error) {
    await train.close();
    throw error;
  }
}

/** The documents of shards without the token that ends each, which the objectives put where they need it. */
export function withoutEnd(shards: TokenShards, eos: number): DocumentSet {
  return {
    count: shards.count,
    tokenCount: shards.tokenCount - shards.count,
    fingerprint: shards.fingerprint,
    async document(index) {
      const ids = await shards.document(index);
      return ids.at(-1) === eos ? ids.subarray(0, -1) : ids;
    },
  };
}
