/** `llmeff generate MODEL --prompt TEXT` */
import { resolve } from "node:path";
import type { DeviceChoice } from "@llmeff/tensor";
import { InterruptedError, UsageError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import type { Io } from "../io.js";
import { loadModel } from "../run/load-model.js";
import { writeText } from "../run/write-text.js";

export interface GenerateCommandOptions {
  prompt: string;
  tokens: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  seed?: number;
  device?: DeviceChoice;
}

/** Writes the prompt and its continuation to stdout, as it comes. */
export async function generateCommand(io: Io, path: string, options: GenerateCommandOptions): Promise<void> {
  const { prompt, tokens, device, ...sampling } = options;
  using loaded = await loadModel(resolve(io.cwd, path), { device });
  const { tokenizer, checkpoint, stopTokens, source } = loaded;
  if (tokenizer === undefined) {
    throw new UsageError(
      source === undefined
        ? `[generate] ${checkpoint} was trained on a generated task, not on text; there is nothing to write.`
        : `[generate] ${checkpoint} has no tokenizer.json; without it there is no text. Copy it there.`,
    );
  }
  await interruptible(io, async (signal) => {
    io.stdout.write(prompt);
    try {
      for await (const piece of writeText(loaded, tokenizer, prompt, {
        maxTokens: tokens,
        stopTokens,
        signal,
        ...sampling,
      })) {
        io.stdout.write(piece);
      }
    } catch (error) {
      throw signal.aborted ? new InterruptedError("[generate] interrupted.") : error;
    } finally {
      io.stdout.write("\n");
    }
  });
}
