/** The samples of a run: a file that is given, or a set generated for the model. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { loadHuggingFaceTokenizer, readText } from "@llmeff/data";
import {
  type Calibration,
  calibrate,
  calibrated,
  calibratedTokens,
  type EvalModel,
  fromTokenizer,
  generateSet,
  isMadeFrom,
  originOf,
  readSamples,
  readSummary,
  readTextPool,
  resultsFile,
  type Sample,
  type SetSpec,
  type SetSummary,
  type SetTokens,
  type TextSource,
  tasksNamed,
  utf8Bytes,
  writeSet,
} from "@llmeff/longcontext";
import { createProgress, writeFileAtomic } from "@llmeff/report";
import { UsageError } from "../errors.js";
import { type Io, note } from "../io.js";

export interface SetOptions {
  task: string[];
  lengths: number[];
  samples: number;
  seed: number;
  thinking: number;
  tokenizer: string;
  /** File with the text in which needles are hidden. */
  haystack?: string;
  /** Pool of texts for MRCR. */
  texts?: string;
}

export const setDefaults: SetOptions = {
  task: ["niah_s2", "latent_list", "mrcr_2", "idk"],
  lengths: [4096, 8192, 16_384, 32_768],
  samples: 10,
  seed: 0,
  thinking: 0,
  tokenizer: "auto",
};

export interface SampleFile {
  path: string;
  summary: SetSummary;
}

/** For when nothing better is known: English text has about four bytes a token. */
const quarterBytes = calibrated("bytes/4", { bytes: 0, promptTokens: 0 }, { bytes: 4, promptTokens: 1 }, { safety: 1 });

async function specOf(io: Io, options: SetOptions): Promise<SetSpec> {
  const { task, lengths, samples, seed, thinking, haystack } = options;
  const tasks = tasksNamed(task).map(({ name }) => name);
  const text = haystack === undefined ? undefined : await readText(resolve(io.cwd, haystack));
  return {
    tasks,
    lengths,
    count: samples,
    seed,
    thinkingBudget: thinking,
    ...(text !== undefined && { haystack: { name: basename(haystack!), text } }),
    ...(options.texts !== undefined && { texts: await poolOf(io, options.texts, tasks) }),
  };
}

async function poolOf(io: Io, path: string, tasks: readonly string[]): Promise<TextSource> {
  if (!tasks.some((name) => name.startsWith("mrcr_")))
    throw new UsageError(
      "[eval] --texts: the replies of chats come from it, in mrcr_2, mrcr_4 and mrcr_8; here is none of these tasks.",
    );
  return readTextPool(resolve(io.cwd, path));
}

/** What a generated set would hold, without writing it. */
export async function countedSet(io: Io, options: SetOptions, tokens: SetTokens): Promise<SampleCounts> {
  const counts = noSamples();
  for (const sample of generateSet(await specOf(io, options), tokens)) count(counts, sample);
  return counts;
}

export type SampleCounts = Pick<SetSummary, "samples" | "promptTokens" | "reserveTokens">;

function noSamples(): SampleCounts {
  return { samples: 0, promptTokens: 0, reserveTokens: 0 };
}

function count(counts: SampleCounts, { budget }: Sample): void {
  counts.samples++;
  counts.promptTokens += budget.promptTokens;
  counts.reserveTokens += budget.reserve;
}

/** Generates the set into `path`, unless it lies there already. */
export async function generatedSet(io: Io, path: string, options: SetOptions, tokens: SetTokens): Promise<SampleFile> {
  const spec = await specOf(io, options);
  const origin = originOf(spec, tokens);
  const there = await readSummary(path);
  if (there !== undefined && isMadeFrom(there, origin)) return { path, summary: there };
  if (there !== undefined) refuseOtherSet(dirname(path), there.origin, origin);
  const times = tasksNamed(spec.tasks).reduce((sum, { times = 1 }) => sum + times, 0);
  const total = times * spec.lengths.length * spec.count;
  const progress = createProgress({ stream: io.stderr, total, label: "samples", env: io.env });
  let made = 0;
  try {
    const summary = await writeSet(path, generateSet(spec, tokens), origin, () => progress.update(++made));
    return { path, summary };
  } finally {
    progress.finish();
  }
}

/** Answers in a folder are those to the samples that lie there, which can't be made again by other settings or another release. */
function refuseOtherSet(
  folder: string,
  there: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
): void {
  if (!existsSync(join(folder, resultsFile))) return;
  const changed = Object.keys({ ...there, ...now }).filter(
    (name) => JSON.stringify(there[name]) !== JSON.stringify(now[name]),
  );
  throw new UsageError(
    `[eval] ${folder} holds answers to samples made with other settings (${changed.join(", ")}). Use another folder, or the same settings.`,
  );
}

/** A file of samples; it is read through once where nothing beside it says what it holds. */
export async function givenSet(path: string): Promise<SampleFile> {
  const summary = await readSummary(path);
  if (summary !== undefined) return { path, summary };
  const counts = noSamples();
  // Ids differ where samples do, so they stand for the content.
  const hash = createHash("sha256");
  for await (const sample of readSamples(path)) {
    count(counts, sample);
    hash.update(`${sample.id}\n`);
  }
  return { path, summary: { ...counts, sha256: hash.digest("hex"), origin: {} } };
}

/**
 * The tokenizer that lengths are counted with. `auto`: the model's own, an endpoint's by calibration (three short requests, kept in the
 * folder), bytes for a stand-in.
 */
export async function tokensFor(
  io: Io,
  choice: string,
  model: EvalModel | undefined,
  folder: string,
  signal?: AbortSignal,
): Promise<SetTokens> {
  if (choice === "utf8-bytes") return { tokenizer: utf8Bytes };
  if (choice === "bytes/4") return { tokenizer: quarterBytes };
  if (choice !== "auto") {
    const path = resolve(io.cwd, choice);
    return { tokenizer: fromTokenizer(choice, await loadHuggingFaceTokenizer(path)) };
  }
  if (model === undefined) return { tokenizer: utf8Bytes };
  const { tokenizer, overhead } = model;
  if (tokenizer !== undefined) return { tokenizer, ...(overhead === undefined ? {} : { overhead }) };
  return calibratedTokens(model.id, await calibrationOf(io, model, folder, signal));
}

async function calibrationOf(io: Io, model: EvalModel, folder: string, signal?: AbortSignal): Promise<Calibration> {
  const path = join(folder, "calibration.json");
  const kept = await readFile(path, "utf8").then(
    (text) => JSON.parse(text) as { model?: string; calibration?: Calibration },
    () => undefined,
  );
  if (kept?.model === model.id && kept.calibration !== undefined) return kept.calibration;
  note(io, `asking ${model.id} three short questions to see how it counts tokens`);
  const calibration = await calibrate(model, signal);
  await writeFileAtomic(path, `${JSON.stringify({ model: model.id, calibration }, null, 2)}\n`);
  return calibration;
}
