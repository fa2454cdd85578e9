/** The `data` of a training config: a text, documents, token shards, or a generated task. */
import { objectivePresets, type TextObjective } from "@llmeff/data";
import { z } from "zod";
import {
  byKind,
  flag,
  list,
  numberWhere,
  object,
  oneOf,
  positiveInteger,
  positiveNumber,
  properFraction,
  text,
  whichever,
  wholeNumber,
} from "./fields.js";

const batches = {
  batchSize: positiveInteger(),
  /** Order of the batches; default the run's seed. */
  seed: wholeNumber().optional(),
};

/** `"character"`, `"byte"`, or the path of a `tokenizer.json`, relative to the config file. */
const tokenizer = () => text('"character", "byte" or the path of a tokenizer.json');

const presets = Object.keys(objectivePresets) as (keyof typeof objectivePresets)[];
const objectiveKinds = ["causal", "prefix", "R", "S", "X"] as const satisfies readonly TextObjective["kind"][];

/** Share in the mixture, relative to the sum of all; default 1. */
const weight = positiveNumber().optional();
const spans = { meanSpan: numberWhere("a number of at least 1", (value) => value >= 1), corruption: properFraction() };
const objective = byKind(objectiveKinds, [
  object({ kind: z.literal("causal"), weight }),
  object({ kind: z.literal("prefix"), weight }),
  object({ kind: z.literal("R"), ...spans, weight }),
  object({ kind: z.literal("S"), corruption: properFraction(), weight }),
  object({ kind: z.literal("X"), ...spans, weight }),
]);

const isText = (value: unknown) => typeof value === "string";
const mixture = () => whichever(isText, oneOf(presets), list(objective, "objectives, or a mixture's name"));
export type MixtureConfig = z.infer<ReturnType<typeof mixture>>;

/** Names of tokens that a tokenizer has. */
const modeNames = object(
  Object.fromEntries(objectiveKinds.map((kind) => [kind, text("a token").optional()])),
) as z.ZodType<Partial<Record<TextObjective["kind"], string>>>;

/** What each document is trained on: the part of the data in which the arms of a study may differ. */
export const objectiveFields = {
  /** A mixture of `objectivePresets`, or a list; default `"causal"`. */
  objectives: mixture().optional(),
  /** A token before a denoiser's inputs that tells its kind. Default true: tokens of their own, after the tokenizer's; or the names of some that it has. */
  modeTokens: whichever((value) => typeof value === "boolean", flag(), modeNames).optional(),
};

const source = object({
  /** In metrics and messages. */
  name: text("a name").refine((name) => !name.includes("/"), "expected a name without slashes."),
  /** Text (plain or gzip), JSON lines (also gzip) or Parquet, relative to the config file. */
  path: whichever(
    Array.isArray,
    list(text("the path of a file"), "paths"),
    text("the path of a file, or a list"),
  ).optional(),
  /** Or a folder that `llmeff tokenize` wrote: documents that stay on the disk. */
  shards: text("a folder that llmeff tokenize wrote").optional(),
  /** Its share of the training tokens, relative to the sum of all; instead of a temperature. */
  weight: positiveNumber().optional(),
  /** Field or column of the text; default `"text"`. */
  field: text("the name of a field").optional(),
  /** Values of a field that decides which documents are held out; default by a hash of their texts (`validFraction`). */
  splits: object({ field: text("the name of a field").optional(), train: text(), valid: text() }).optional(),
  /** What divides a text file into documents; default none, each file is one. */
  separator: text("what stands between documents").optional(),
});
export type SourceConfig = z.infer<typeof source>;

export const dataSchema = byKind(
  ["text", "documents", "shards", "relationComposition"],
  [
    object({
      kind: z.literal("text"),
      /** Plain or gzip text, relative to the config file. */
      path: text("the path of a text file"),
      tokenizer: tokenizer(),
      /** The last part of the text is kept for validation; default 0.1. */
      validFraction: properFraction().optional(),
      seqLen: positiveInteger(),
      ...batches,
    }),
    object({
      kind: z.literal("documents"),
      sources: list(source, "sources"),
      /** Above 1 raises the share of small sources, below lowers it; default 1. */
      temperature: positiveNumber().optional(),
      /** Left out if there are shards, which bring theirs. */
      tokenizer: tokenizer().optional(),
      /** A token of the tokenizer that ends documents; default one of its own. */
      eos: text("a token of the tokenizer").optional(),
      /** Share of the documents of files that is kept for validation; default 0.01. */
      validFraction: properFraction().optional(),
      /** Longer documents of files become several, which are shuffled apart; default as they are. */
      maxDocumentTokens: positiveInteger().optional(),
      packing: oneOf(["greedy", "bestFit"]).optional(),
      /** Sequences that `"bestFit"` reads ahead; default 256. */
      lookAhead: positiveInteger().optional(),
      ...objectiveFields,
      /** What the held-out documents are measured by beside `"causal"`; default the objectives of the training. */
      evaluateObjectives: mixture().optional(),
      seqLen: positiveInteger(),
      ...batches,
    }),
    object({
      kind: z.literal("shards"),
      /** A folder that `llmeff tokenize` wrote, relative to the config file. */
      path: text("a folder that llmeff tokenize wrote"),
      seqLen: positiveInteger(),
      ...batches,
    }),
    object({
      kind: z.literal("relationComposition"),
      size: positiveInteger(),
      encoding: oneOf(["tagged", "positional"]).optional(),
      ...batches,
    }),
  ],
);

export type DataConfig = z.infer<typeof dataSchema>;
export type DataOf<Kind extends DataConfig["kind"]> = Extract<DataConfig, { kind: Kind }>;
export type Metric = "validationLoss" | "accuracy";

/** Reports a problem at a path in `data`. */
type Report = (path: readonly PropertyKey[], message: string) => void;

/** What doesn't go together in a data config. */
export function checkData(data: DataConfig, report: Report): void {
  if (data.kind === "documents") checkDocuments(data, report);
}

function checkDocuments(data: DataOf<"documents">, report: Report): void {
  const { sources, temperature, tokenizer, eos, packing, lookAhead } = data;
  const weighed = sources.filter(({ weight }) => weight !== undefined).length;
  const sharded = sources.some(({ shards }) => shards !== undefined);
  for (const [i, one] of sources.entries()) {
    const at = (key: string) => ["sources", i, key];
    if (sources.findIndex(({ name }) => name === one.name) < i) report(at("name"), `the name "${one.name}" is taken.`);
    if (weighed > 0 && one.weight === undefined)
      report(at("weight"), "expected a weight for all sources, or for none.");
    checkSource(one, (key, message) => report(at(key), message));
  }
  if (weighed > 0 && temperature !== undefined)
    report(["temperature"], "the sources' weights are used; remove one of both.");
  if (!sharded && tokenizer === undefined)
    report(["tokenizer"], 'expected "character", "byte" or the path of a tokenizer.json; received nothing.');
  if (sharded && tokenizer !== undefined) report(["tokenizer"], "the shards' tokenizer is used; remove it.");
  if (sharded && eos !== undefined) report(["eos"], "the shards' end of documents is used; remove it.");
  if (sharded && sources.every(({ shards }) => shards !== undefined)) {
    const { validFraction, maxDocumentTokens } = data;
    for (const [key, value] of Object.entries({ validFraction, maxDocumentTokens }))
      if (value !== undefined) report([key], ofTokenize);
  }
  if (lookAhead !== undefined && packing !== "bestFit") report(["lookAhead"], 'it is for packing: "bestFit".');
}

const ofTokenize = "shards are documents already; llmeff tokenize has this as an option.";

/** Whether a file of documents is text, and none of records. */
export const isTextFile = (path: string) => !/\.(?:(?:jsonl|ndjson|json)(?:\.gz)?|parquet)$/.test(path);

function checkSource(one: SourceConfig, report: (key: string, message: string) => void): void {
  const { path, shards, field, splits, separator } = one;
  if ((path === undefined) === (shards === undefined)) report("path", "expected either path or shards.");
  if (shards !== undefined) {
    const idle = Object.entries({ field, splits, separator }).filter(([, value]) => value !== undefined);
    for (const [key] of idle) report(key, ofTokenize);
    return;
  }
  checkFiles([path ?? []].flat(), { field, splits, separator }, report);
}

/** What there is to say of files, and that doesn't go with all of these. */
export function checkFiles(
  paths: readonly string[],
  { field, splits, separator }: Pick<SourceConfig, "field" | "splits" | "separator">,
  report: (key: "field" | "splits" | "separator", message: string) => void,
): void {
  if (separator !== undefined && !paths.some(isTextFile)) report("separator", "it divides text files; here are none.");
  if (!paths.some(isTextFile)) return;
  const message = "text files have no fields; it is for .jsonl, .json and .parquet.";
  if (field !== undefined) report("field", message);
  if (splits !== undefined) report("splits", message);
}

/** What a run on these data is judged by. */
export function metricOf(data: Pick<DataConfig, "kind">): Metric {
  return data.kind === "relationComposition" ? "accuracy" : "validationLoss";
}

/** Positions of a training sequence. */
export function seqLenOf(data: DataConfig): number {
  return data.kind === "relationComposition" ? 3 * data.size ** 2 : data.seqLen;
}

/** What a loss is counted in. */
export function lossUnit(data: DataConfig): string {
  return "tokenizer" in data && data.tokenizer === "character" ? "nats/char" : "nats/token";
}
