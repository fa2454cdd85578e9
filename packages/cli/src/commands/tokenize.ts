/** `llmeff tokenize CORPUS... --tokenizer T --out DIR` */
import { existsSync } from "node:fs";
import { readdir, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { type Tokenizer, writeTokenShards } from "@llmeff/data";
import { createProgress, formatCompact, formatNumber, type Progress, takeLock, writeFileAtomic } from "@llmeff/report";
import { checkFiles } from "../config/data-schema.js";
import { formatJson } from "../config/format-json.js";
import { InterruptedError, UsageError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import { type Io, print } from "../io.js";
import { openTokenizer } from "../run/data/open-tokenizer.js";
import { cutDocument, type DividedFiles, documentsOn, type Side } from "../run/data/source-documents.js";
import { endOfDocument } from "../run/data/special-tokens.js";
import { type Corpus, corpusFile, isOfCorpus } from "../run/data/token-folder.js";
import { defined } from "../run/defined.js";
import { makeFolder } from "../run/make-folder.js";

export interface TokenizeCommandOptions {
  tokenizer: string;
  out: string;
  eos?: string;
  field?: string;
  separator?: string;
  split?: [train: string, valid: string];
  splitField?: string;
  validFraction?: number;
  maxDocumentTokens?: number;
  maxShardTokens?: number;
}

/**
 * Writes documents as token shards for training, `train-*` and `valid-*` with `corpus.json`, into a folder that appears when all of it is there. The documents
 * are streamed, once for each side (a tokenizer of characters reads them before that), so that they needn't fit into memory.
 */
export async function tokenizeCommand(
  io: Io,
  paths: readonly string[],
  options: TokenizeCommandOptions,
): Promise<void> {
  const files = filesOf(io, paths, options);
  const folder = resolve(io.cwd, options.out);
  if (existsSync(folder)) throw isThere(folder);
  const unfinished = `${folder}.unfinished`;
  await makeFolder(dirname(folder));
  // Beside the folder, which must not be there: the second writer would clear what the first is writing.
  await using _lock = await takeLock(`${unfinished}.lock`, folder, "tokenize");
  if (existsSync(folder)) throw isThere(folder);
  await removeUnfinished(unfinished);
  try {
    await interruptible(io, (signal) => writeFolder(io, files, unfinished, options, signal), "giving up");
    await rename(unfinished, folder);
  } catch (error) {
    throw error instanceof InterruptedError ? new InterruptedError("[tokenize] interrupted; nothing was kept.") : error;
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

function isThere(folder: string): UsageError {
  return new UsageError(`[tokenize] ${folder} is there already. Choose a new folder.`);
}

/** @throws {UsageError} for an option that says nothing of such files, which would be passed over */
function filesOf(io: Io, paths: readonly string[], options: TokenizeCommandOptions): DividedFiles {
  const { field, separator, split, splitField, validFraction } = options;
  const splits = split && { field: splitField, train: split[0], valid: split[1] };
  const refuse = (option: string, message: string): never => {
    throw new UsageError(`[tokenize] --${option}: ${message}`);
  };
  checkFiles(paths, { field, separator, splits }, (key, message) => refuse(key === "splits" ? "split" : key, message));
  if (splitField !== undefined && split === undefined)
    refuse("split-field", "expected --split with two of its values.");
  if (validFraction !== undefined && split !== undefined)
    refuse("valid-fraction", "--split decides what is held out; remove one of both.");
  return { paths: paths.map((path) => resolve(io.cwd, path)), splits, field, separator, validFraction };
}

/** Removes what a writer that was killed has left; a folder that holds anything else is somebody's. */
async function removeUnfinished(folder: string): Promise<void> {
  if (!existsSync(folder)) return;
  const names = await readdir(folder).catch(() => undefined);
  if (!names?.every(isOfCorpus))
    throw new UsageError(`[tokenize] ${folder} is in the way, where the shards are written at first. Move it.`);
  await rm(folder, { recursive: true });
}

async function writeFolder(
  io: Io,
  files: DividedFiles,
  folder: string,
  options: TokenizeCommandOptions,
  signal: AbortSignal,
): Promise<void> {
  const texts = () => charactersOf(files, signal);
  const tokenizer = await openTokenizer(options.tokenizer, io.cwd, texts);
  const eos = endOfDocument(tokenizer, options.eos, "--eos");
  const vocabSize = Math.max(tokenizer.vocabSize, eos + 1);
  using progress = createProgress({ stream: io.stderr, total: 2, label: "tokenize", env: io.env });
  const written = { documents: { train: 0, valid: 0 }, tokens: { train: 0, valid: 0 } };
  for (const side of ["train", "valid"] as const) {
    const documents = tokenized(files, side, tokenizer, options, written, progress, signal);
    const settings = { name: side, vocabSize, eos, signal, ...defined({ maxTokens: options.maxShardTokens }) };
    await writeTokenShards(folder, documents, settings);
    if (written.documents[side] > 0) continue;
    throw new UsageError(
      `[tokenize] there is no document for ${side === "train" ? "training" : "validation"} among ${written.documents.train} of training. ` +
        "Change --valid-fraction or --split, or divide the texts with --separator.",
    );
  }
  const corpus: Corpus = { tokenizer: tokenizer.toJSON(), eos, vocabSize, ...written };
  await writeFileAtomic(join(folder, corpusFile), formatJson(corpus));
  progress.finish();
  for (const side of ["train", "valid"] as const) {
    const [documents, tokens] = [written.documents[side], written.tokens[side]];
    print(io, `${side}: ${formatNumber(documents)} documents, ${formatCompact(tokens)} tokens`);
  }
}

async function* tokenized(
  files: DividedFiles,
  side: Side,
  tokenizer: Tokenizer,
  { maxDocumentTokens }: TokenizeCommandOptions,
  written: Pick<Corpus, "documents" | "tokens">,
  progress: Progress,
  signal: AbortSignal,
): AsyncGenerator<Int32Array> {
  for await (const text of documentsOn(side, files, signal)) {
    for (const document of cutDocument(tokenizer.encode(text, { addSpecialTokens: false }), maxDocumentTokens)) {
      yield document;
      written.documents[side] += 1;
      written.tokens[side] += document.length + 1; // its end
      const { train, valid } = written.documents;
      progress.update(side === "train" ? 0 : 1, { note: `${formatNumber(train + valid)} documents` });
    }
  }
}

/** All characters that occur, as a text; the documents themselves aren't held. */
async function charactersOf(files: DividedFiles, signal: AbortSignal): Promise<string[]> {
  const found = new Set<string>();
  for (const side of ["train", "valid"] as const) {
    for await (const text of documentsOn(side, files, signal)) for (const character of text) found.add(character);
  }
  return [...found];
}
