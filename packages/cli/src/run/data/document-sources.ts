/** The sources of a config's documents, in the tokens of one tokenizer: files are held in memory, shards stay on the disk. */
import { dirname, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { type DocumentSet, documentSet, type Tokenizer } from "@llmeff/data";
import type { DataOf, SourceConfig } from "../../config/data-schema.js";
import { UsageError } from "../../errors.js";
import type { OpenDataOptions } from "./open-data.js";
import { openTokenizer } from "./open-tokenizer.js";
import { cutDocument, documentsOn, type Side } from "./source-documents.js";
import { endOfDocument } from "./special-tokens.js";
import { openTokenFolder, type TokenFolder, withoutEnd } from "./token-folder.js";

export interface Source extends Record<Side, DocumentSet> {
  name: string;
  weight: number | undefined;
}

/** A tokenizer, and the token that ends documents. */
interface Tokens {
  tokenizer: Tokenizer;
  eos: number;
}

export interface Sources extends Tokens {
  sources: readonly Source[];
  close(): Promise<void>;
}

/** @throws {UsageError} if shards of several tokenizers are to be mixed, or a source has no document on a side */
export async function openSources(data: DataOf<"documents">, options: OpenDataOptions): Promise<Sources> {
  const folders = new Map<string, TokenFolder>();
  const close = async () => {
    for (const folder of folders.values()) await folder.close();
  };
  try {
    for (const { name, shards } of data.sources) {
      if (shards !== undefined) {
        folders.set(name, await openTokenFolder(resolve(dirname(options.configFile), shards)));
      }
    }
    const texts = await readTexts(data, options);
    const tokens = commonTokens(folders, options.configFile) ?? (await ownTokens(data, texts, options));
    const sources = data.sources.map((source) => tokenized(source, tokens, folders, texts, data.maxDocumentTokens));
    for (const source of sources) requireDocuments(source, options.configFile);
    return { ...tokens, sources, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The documents of the files by their source. */
type Texts = ReadonlyMap<string, Record<Side, readonly string[]>>;

async function readTexts(
  { sources, validFraction }: DataOf<"documents">,
  { configFile, signal }: OpenDataOptions,
): Promise<Texts> {
  const texts = new Map<string, Record<Side, string[]>>();
  for (const { name, path = [], ...files } of sources) {
    const paths = [path].flat().map((one) => resolve(dirname(configFile), one));
    const read: Record<Side, string[]> = { train: [], valid: [] };
    for (const side of ["train", "valid"] as const) {
      for await (const text of documentsOn(side, { ...files, paths, validFraction }, signal)) read[side].push(text);
    }
    texts.set(name, read);
  }
  return texts;
}

/** Those of the shards, which must agree; undefined if there are none. */
function commonTokens(folders: ReadonlyMap<string, TokenFolder>, configFile: string): Tokens | undefined {
  const [first, ...others] = folders.entries();
  if (first === undefined) return undefined;
  const [, { tokenizer, eos }] = first;
  const stranger = others.find(
    ([, other]) => other.eos !== eos || !isDeepStrictEqual(other.tokenizer.toJSON(), tokenizer.toJSON()),
  );
  if (stranger === undefined) return { tokenizer, eos };
  throw new UsageError(
    `[${configFile}] data.sources: the shards of "${first[0]}" and "${stranger[0]}" were written with different tokenizers. Write them with the same one.`,
  );
}

async function ownTokens(data: DataOf<"documents">, texts: Texts, { configFile }: OpenDataOptions): Promise<Tokens> {
  const all = async () => [...texts.values()].flatMap(({ train, valid }) => [...train, ...valid]);
  const tokenizer = await openTokenizer(data.tokenizer!, dirname(configFile), all);
  return { tokenizer, eos: endOfDocument(tokenizer, data.eos, "data.eos") };
}

function tokenized(
  { name, weight }: SourceConfig,
  { tokenizer, eos }: Tokens,
  folders: ReadonlyMap<string, TokenFolder>,
  texts: Texts,
  maxDocumentTokens: number | undefined,
): Source {
  const encoded = (text: string) => cutDocument(tokenizer.encode(text, { addSpecialTokens: false }), maxDocumentTokens);
  const folder = folders.get(name);
  const documentsOf = (side: Side) =>
    folder === undefined
      ? documentSet(texts.get(name)![side].flatMap((text) => [...encoded(text)]))
      : withoutEnd(folder[side], eos);
  return { name, weight, train: documentsOf("train"), valid: documentsOf("valid") };
}

function requireDocuments({ name, train, valid }: Source, configFile: string): void {
  if (train.tokenCount > 0 && valid.tokenCount > 0) return;
  throw new UsageError(
    `[${configFile}] data.sources: "${name}" has ${train.count} documents for training and ${valid.count} for validation; ` +
      "there must be some of both. Change validFraction or splits, or divide its texts by a separator.",
  );
}
