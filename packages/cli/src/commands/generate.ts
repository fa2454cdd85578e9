/** `llmeff generate MODEL --prompt TEXT` */
import { resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { readText, streamJsonl, type Tokenizer } from "@llmeff/data";
import { BatchGenerator, type SamplingOptions, type TokenLogProb } from "@llmeff/models";
import type { DeviceChoice } from "@llmeff/tensor";
import { InterruptedError, UsageError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import { type Io, note, print } from "../io.js";
import { defined } from "../run/defined.js";
import { type LoadedModel, loadModel } from "../run/load-model.js";
import { type Ending, type WriteOptions, writeText } from "../run/write-text.js";

export interface GenerateCommandOptions extends SamplingOptions {
  prompt?: string;
  /** File of several. */
  prompts?: string;
  tokens: number;
  /** Texts for each prompt; default 1. */
  samples?: number;
  stop?: string[];
  seed?: number;
  json?: boolean;
  /** Of the likeliest tokens so many are given with each. */
  logProbs?: number;
  /** Texts at a time. */
  batch?: number;
  /** Small model that drafts. */
  draft?: string;
  draftTokens?: number;
  device?: DeviceChoice;
}

/** A text to be written. */
interface Task {
  prompt: string;
  sample: number;
}

/** A line of the JSON output. */
interface WrittenText extends Task {
  text: string;
  ending: Ending;
  tokens: number;
  logProbs?: TokenLine[];
}

interface TokenLine extends TokenText {
  top: TokenText[];
}

interface TokenText extends TokenLogProb {
  token: string;
}

/** Writes the continuation of a prompt to stdout as it comes, or those of several prompts as lines of JSON in their order. */
export async function generateCommand(io: Io, path: string, options: GenerateCommandOptions): Promise<void> {
  const {
    prompt,
    prompts,
    samples,
    json,
    batch: maxSequences,
    draft: draftPath,
    draftTokens,
    device,
    ...rest
  } = options;
  const { tokens: maxTokens, logProbs: topLogProbs, seed = 0, ...sampling } = rest;
  if (draftTokens !== undefined && draftPath === undefined) {
    throw new UsageError("[generate] --draft-tokens says how many a draft model drafts. Name one with --draft.");
  }
  const tasks = await tasksOf(io, { prompt, prompts, samples });
  using loaded = await loadModel(resolve(io.cwd, path), { device });
  const tokenizer = tokenizerOf(loaded);
  using draft = draftPath === undefined ? undefined : await loadModel(resolve(io.cwd, draftPath), { device });
  if (draft !== undefined) requireSameTokenizer(tokenizer, draft);
  const drafting = draft && {
    draft: { ...defined({ tokens: draftTokens }), model: draft.model, params: draft.params },
  };
  using batch = new BatchGenerator(loaded.model, loaded.params, { ...defined({ maxSequences }), ...drafting });
  const writing = { ...defined({ ...sampling, topLogProbs }), maxTokens, seed, stopTokens: loaded.stopTokens };
  const asLines = json === true || topLogProbs !== undefined || tasks.length > 1;
  await interruptible(io, async (signal) => {
    const work = { io, batch, tokenizer, options: { ...writing, signal } };
    try {
      await (asLines ? writeLines(work, tasks) : writePlain(work, tasks[0]!));
    } catch (error) {
      throw signal.aborted ? new InterruptedError("[generate] interrupted.") : error;
    }
  });
  if (draft !== undefined) noteDrafts(io, batch);
}

function noteDrafts(io: Io, { drafts: { drafted, accepted } }: BatchGenerator): void {
  const share = drafted === 0 ? "" : ` (${Math.round((100 * accepted) / drafted)} %)`;
  note(io, `[generate] ${accepted} of ${drafted} drafted tokens were right${share}.`);
}

async function tasksOf(
  io: Io,
  {
    prompt,
    prompts: file,
    samples = 1,
  }: { [K in "prompt" | "prompts" | "samples"]: GenerateCommandOptions[K] | undefined },
): Promise<Task[]> {
  if ((prompt === undefined) === (file === undefined)) {
    throw new UsageError("[generate] give what the text begins with, either by --prompt TEXT or by --prompts FILE.");
  }
  const prompts = file === undefined ? [prompt!] : await promptsIn(resolve(io.cwd, file));
  if (prompts.length === 0) throw new UsageError(`[generate] ${file} holds no prompt.`);
  return prompts.flatMap((prompt) => Array.from({ length: samples }, (_, sample) => ({ prompt, sample })));
}

/** Lines of text, or the field `prompt` of lines of JSON. */
async function promptsIn(path: string): Promise<string[]> {
  if (!/\.jsonl(\.gz)?$/.test(path)) return (await readText(path)).split(/\r?\n/).filter((line) => line.trim() !== "");
  const prompts: string[] = [];
  for await (const { text } of streamJsonl(path, { field: "prompt" })) prompts.push(text);
  return prompts;
}

function tokenizerOf({ tokenizer, checkpoint, source }: LoadedModel): Tokenizer {
  if (tokenizer !== undefined) return tokenizer;
  throw new UsageError(
    source === undefined
      ? `[generate] ${checkpoint} was trained on a generated task, not on text; there is nothing to write.`
      : `[generate] ${checkpoint} has no tokenizer.json; without it there is no text. Copy it there.`,
  );
}

/** Drafted ids mean the same to both models, or nothing. */
function requireSameTokenizer(tokenizer: Tokenizer, draft: LoadedModel): void {
  if (isDeepStrictEqual(tokenizerOf(draft).toJSON(), tokenizer.toJSON())) return;
  throw new UsageError(
    `[generate] the draft model ${draft.checkpoint} has another tokenizer than the model. Take one that was trained with the same.`,
  );
}

interface Work {
  io: Io;
  batch: BatchGenerator;
  tokenizer: Tokenizer;
  /** Those of the first sample of a prompt; the others have the seeds after its. */
  options: WriteOptions & { seed: number };
}

async function writePlain({ io, batch, tokenizer, options }: Work, { prompt }: Task): Promise<void> {
  io.stdout.write(prompt);
  try {
    for await (const { text } of writeText(batch, tokenizer, tokenizer.encode(prompt), options))
      if (text !== "") io.stdout.write(text);
  } finally {
    io.stdout.write("\n");
  }
}

/** All at once, printed in order. */
async function writeLines(work: Work, tasks: readonly Task[]): Promise<void> {
  const failure = new AbortController();
  const signal = AbortSignal.any([failure.signal, ...(work.options.signal ? [work.options.signal] : [])]);
  const lines = tasks.map((task) => written({ ...work, options: { ...work.options, signal } }, task));
  // One that fails before its turn is told in its turn; until then it isn't an error that nobody has seen to.
  for (const line of lines) line.catch(() => {});
  try {
    for (const line of lines) print(work.io, JSON.stringify(await line));
  } catch (error) {
    failure.abort(error);
    await Promise.allSettled(lines);
    throw error;
  }
}

async function written({ batch, tokenizer, options }: Work, task: Task): Promise<WrittenText> {
  const seed = options.seed + task.sample;
  const pieces = writeText(batch, tokenizer, tokenizer.encode(task.prompt), { ...options, seed });
  const withToken = ({ id, logProb }: TokenLogProb) => ({
    id,
    token: id < tokenizer.vocabSize ? tokenizer.decode([id], { skipSpecialTokens: false }) : "",
    logProb,
  });
  const logProbs: TokenLine[] = [];
  let text = "";
  let next = await pieces.next();
  for (; !next.done; next = await pieces.next()) {
    const { text: piece, token } = next.value;
    text += piece;
    if (token !== undefined) logProbs.push({ ...withToken(token), top: token.top.map(withToken) });
  }
  const common = { ...task, text, ending: next.value, tokens: logProbs.length };
  return options.topLogProbs === undefined ? common : { ...common, logProbs };
}
