/** Documents of one or several sources, packed into rows under a mixture of objectives, and the held-out ones under each. */

import { dirname, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import {
  DocumentBatches,
  type DocumentSet,
  documentSet,
  type ExampleOptions,
  heldOutDocuments,
  mixDocuments,
  prefetch,
  type Tokenizer,
} from "@llmeff/data";
import type { DataOf, SourceConfig } from "../../config/data-schema.js";
import { UsageError } from "../../errors.js";
import { defined } from "../defined.js";
import { objectivesOf } from "./objectives.js";
import type { LossSet, LossSets, OpenDataOptions, OpenedData } from "./open-data.js";
import { readAhead } from "./open-shards.js";
import { openTokenizer } from "./open-tokenizer.js";
import { cutDocument, documentsOn, type Side } from "./source-documents.js";
import { endOfDocument, specialTokens } from "./special-tokens.js";
import { textBytes } from "./text-bytes.js";
import { openTokenFolder, type TokenFolder, withoutEnd } from "./token-folder.js";

/** The documents of a source as tokens. */
interface Source extends Record<Side, DocumentSet> {
  name: string;
  weight: number | undefined;
}

export async function openDocuments(data: DataOf<"documents">, options: OpenDataOptions): Promise<OpenedData> {
  const { seqLen, batchSize, packing, lookAhead, temperature } = data;
  const { configFile, seed } = options;
  const folders = await openFolders(data.sources, dirname(configFile));
  const close = async () => {
    for (const { close } of folders.values()) await close();
  };
  try {
    const { tokenizer, eos, sources } = await readSources(data, folders, options);
    for (const source of sources) requireDocuments(source, configFile);
    const { training, measured } = objectivesOf(data);
    const used = Math.max(tokenizer.vocabSize, eos + 1);
    const { vocabSize, ...special } = specialTokens(tokenizer, used, [...training, ...measured.values()], data);
    const rows = { seqLen, batchSize, padding: eos, eos, ...special };
    const mixed = mixDocuments(
      sources.map(({ name, train, weight }) => ({ name, documents: train, ...defined({ weight }) })),
      { seed, ...defined({ temperature }) },
    );
    const packed = new DocumentBatches(mixed, {
      ...rows,
      seed,
      objectives: training,
      ...defined({ packing, lookAhead }),
    });
    const measure = (objectives: ExampleOptions["objectives"]) =>
      heldOutSets(sources, tokenizer, { ...rows, ...defined({ objectives }), maxRows: options.evaluateWindows });
    const objectives: Record<string, LossSets> = {};
    for (const [name, objective] of measured) objectives[name] = await measure([objective]);
    return {
      train: prefetch(packed, { depth: readAhead }),
      valid: { metric: "validationLoss", causal: await measure("causal"), objectives },
      ...{ vocabSize, seqLen, tokenizer, stopTokens: [eos], close },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openFolders(sources: readonly SourceConfig[], base: string): Promise<Map<string, TokenFolder>> {
  const opened = new Map<string, TokenFolder>();
  try {
    for (const { name, shards } of sources) {
      if (shards !== undefined) opened.set(name, await openTokenFolder(resolve(base, shards)));
    }
    return opened;
  } catch (error) {
    for (const { close } of opened.values()) await close();
    throw error;
  }
}

/** All sources in the tokens of one tokenizer: that of the shards, if there are any. */
async function readSources(
  data: DataOf<"documents">,
  folders: ReadonlyMap<string, TokenFolder>,
  { configFile, signal }: OpenDataOptions,
): Promise<{ tokenizer: Tokenizer; eos: number; sources: Source[] }> {
  const { validFraction = 0.01, maxDocumentTokens } = data;
  const base = dirname(configFile);
  const texts = new Map<string, Record<Side, string[]>>();
  for (const { name, path, ...files } of data.sources) {
    if (path === undefined) continue;
    const divided = { ...files, paths: [path].flat().map((one) => resolve(base, one)), validFraction };
    texts.set(name, { train: [], valid: [] });
    for (const side of ["train", "valid"] as const) {
      for await (const text of documentsOn(side, divided, signal)) texts.get(name)![side].push(text);
    }
  }
  const { tokenizer, eos } =
    commonTokens(folders, configFile) ??
    (await ownTokens(data, base, () => [...texts.values()].flatMap(({ train, valid }) => [...train, ...valid])));
  const encoded = (documents: readonly string[]) =>
    documentSet(
      documents.flatMap((text) => [
        ...cutDocument(tokenizer.encode(text, { addSpecialTokens: false }), maxDocumentTokens),
      ]),
    );
  const sources = data.sources.map(({ name, weight }): Source => {
    const folder = folders.get(name);
    if (folder !== undefined) {
      return { name, weight, train: withoutEnd(folder.train, eos), valid: withoutEnd(folder.valid, eos) };
    }
    const { train, valid } = texts.get(name)!;
    return { name, weight, train: encoded(train), valid: encoded(valid) };
  });
  return { tokenizer, eos, sources };
}

async function ownTokens(data: DataOf<"documents">, base: string, texts: () => string[]) {
  const tokenizer = await openTokenizer(data.tokenizer!, base, async () => texts());
  return { tokenizer, eos: endOfDocument(tokenizer, data.eos, "data.eos") };
}

/** Of the folders, which must agree; undefined if there are none. */
function commonTokens(folders: ReadonlyMap<string, TokenFolder>, configFile: string) {
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

function requireDocuments({ name, train, valid }: Source, configFile: string): void {
  for (const [side, { tokenCount }] of [
    ["training", train],
    ["validation", valid],
  ] as const) {
    if (tokenCount > 0) continue;
    throw new UsageError(
      `[${configFile}] data.sources: "${name}" has ${train.count} documents for training and ${valid.count} for validation; none of ${side} has a token. ` +
        "Change validFraction or splits, or divide its texts by a separator.",
    );
  }
}

async function heldOutSets(
  sources: readonly Source[],
  tokenizer: Tokenizer,
  options: Parameters<typeof heldOutDocuments>[1],
): Promise<LossSets> {
  const sets: Record<string, LossSet> = {};
  for (const { name, valid } of sources) {
    const batches = await heldOutDocuments(valid, options);
    const bytes = batches.examples.reduce((sum, { tokens }) => sum + textBytes(tokenizer, tokens), 0);
    sets[name] = options.objectives === "causal" ? { batches, bytes } : { batches };
  }
  return sets;
}
