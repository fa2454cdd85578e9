/** `llmeff tokenizer TEXT... --vocab-size N --out FILE` */
import { dirname, resolve } from "node:path";
import { readText, tokenizerJson, trainBpe } from "@llmeff/data";
import { formatNumber, writeFileAtomic } from "@llmeff/report";
import { InterruptedError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import { type Io, print } from "../io.js";
import { makeFolder } from "../run/make-folder.js";

export interface TokenizerCommandOptions {
  vocabSize: number;
  out: string;
  special?: string[];
  minFrequency?: number;
}

/** Learns a byte-level BPE tokenizer from texts (plain or gzip, one at a time in memory) and writes it as a tokenizer.json. */
export async function tokenizerCommand(
  io: Io,
  paths: readonly string[],
  options: TokenizerCommandOptions,
): Promise<void> {
  const { vocabSize, out, special = [], minFrequency } = options;
  const target = resolve(io.cwd, out);
  async function* texts(signal: AbortSignal) {
    for (const path of paths) yield await readText(resolve(io.cwd, path), { signal });
  }
  await interruptible(io, async (signal) => {
    try {
      const settings = {
        vocabSize,
        specialTokens: special,
        signal,
        ...(minFrequency === undefined ? {} : { minFrequency }),
      };
      const tokenizer = await trainBpe(texts(signal), settings);
      await makeFolder(dirname(target));
      await writeFileAtomic(target, `${JSON.stringify(tokenizerJson(tokenizer))}\n`);
      print(io, `${out}: ${formatNumber(tokenizer.vocabSize)} tokens`);
    } catch (error) {
      throw signal.aborted ? new InterruptedError("[tokenizer] interrupted; nothing was written.") : error;
    }
  });
}
