/** Has a model write the texts of a pool, one request each, into a file that survives interruption. */

import { existsSync } from "node:fs";
import { AppendFile } from "@llmeff/report";
import { GenerationError } from "../errors.js";
import { endsInNewline, fileLines, replaceLines } from "../file-lines.js";
import type { EvalModel } from "../models/eval-model.js";
import { requireInteger } from "../require-integer.js";
import { type Tokenizer, utf8Length } from "../tokens/tokenizer.js";
import { DistinctTexts } from "./distinct-texts.js";
import { withArticle } from "./frame.js";
import type { TextKey } from "./text.js";
import { keyName, type PoolEntry, parsePoolEntry } from "./text-pool.js";

/** Variations of a request, so that one key has many different texts. */
export const TWEAKS = [
  "as told to a child",
  "as a warning",
  "as a memory of long ago",
  "as a rumour",
  "with a surprising end",
  "as seen by a stranger",
  "as a quarrel between friends",
  "as advice to a beginner",
  "on a stormy night",
  "with much praise",
] as const;

export interface WriteTextPoolOptions {
  keys: readonly TextKey[];
  /** Texts of each key. */
  perKey: number;
  /** Default `TWEAKS`; taken in turn. */
  tweaks?: readonly string[];
  /** Counts the 40 to 512 tokens of a text; default: four bytes a token. */
  tokenizer?: Tokenizer;
  /** Tries for each text before the pool is given up; default 5. */
  attempts?: number;
  /** Date of the entries; default: now. */
  date?: () => string;
  signal?: AbortSignal;
  onEntry?: (entry: PoolEntry) => void;
}

const LEAST_TOKENS = 40;
const MOST_TOKENS = 512;
const BYTES_PER_TOKEN = 4;
const REFUSAL =
  /\b(?:i(?:'m| am) (?:sorry|unable|not able)|i can(?:no|')t (?:help|write|assist|provide|fulfil)|as an ai\b|language model)/i;

const instruction = ({ format, topic, style }: TextKey, tweak: string): string =>
  `Write ${withArticle(format)} about ${topic} in the ${style} style, ${tweak}. Use 50 to 300 words, and invent a name and a number in the first few words. Give the text alone, without a title.`;

/** A blank line would end a reply where a chat is told as one text. */
const normalise = (text: string): string =>
  text
    .trim()
    .replace(/[ \t]+$/gm, "")
    .replace(/\n{2,}/g, "\n");

/**
 * Fills the file up to `perKey` valid texts of every key. Each text is appended when it is there, so a stopped call is continued by the
 * next; entries that break a rule (40 to 512 tokens, no refusal, distinct from all others) are taken out and written anew.
 *
 * @returns how many texts were asked for and how many the file holds
 * @throws {GenerationError} if a key gets no valid text in `attempts` tries; what `model.generate` throws
 */
export async function writeTextPool(
  model: Pick<EvalModel, "id" | "generate">,
  path: string,
  options: WriteTextPoolOptions,
): Promise<{ asked: number; texts: number }> {
  const { keys, perKey, tweaks = TWEAKS, attempts = 5, date = () => new Date().toISOString(), signal } = options;
  requireInteger("writeTextPool", "perKey", perKey, 1, 10_000);
  requireInteger("writeTextPool", "attempts", attempts, 1, 100);
  requireInteger("writeTextPool", "number of tweaks", tweaks.length, 1, 10_000);
  const rules = new PoolRules(options.tokenizer);
  const kept = await keepValid(path, rules);
  const file = await AppendFile.open(path);
  let asked = 0;
  try {
    for (const key of keys) {
      const have = kept.filter((entry) => keyName(entry.key) === keyName(key)).length;
      for (let i = have; i < perKey; i++) {
        const tweak = tweaks[i % tweaks.length]!;
        const text = await firstValid(attempts, key, rules, async () => {
          asked++;
          const messages = [{ role: "user" as const, content: instruction(key, tweak) }];
          const request = {
            messages,
            maxTokens: 2 * MOST_TOKENS,
            temperature: 1,
            ...(signal === undefined ? {} : { signal }),
          };
          return (await model.generate(request)).text;
        });
        const entry: PoolEntry = { key, tweak, text, model: model.id, date: date() };
        file.append(Buffer.from(`${JSON.stringify(entry)}\n`));
        await file.flush();
        kept.push(entry);
        options.onEntry?.(entry);
      }
    }
  } finally {
    await file.close();
  }
  return { asked, texts: kept.length };
}

/** What a text must be to be taken up. */
class PoolRules {
  readonly #texts = new DistinctTexts();
  readonly #count: (text: string) => number;

  constructor(tokenizer: Tokenizer | undefined) {
    this.#count = tokenizer?.count ?? ((text) => Math.ceil(utf8Length(text) / BYTES_PER_TOKEN));
  }

  accept(key: TextKey, text: string): boolean {
    const tokens = this.#count(text);
    if (tokens < LEAST_TOKENS || tokens > MOST_TOKENS || REFUSAL.test(text)) return false;
    return text === normalise(text) && this.#texts.accept(keyName(key), text);
  }
}

/** The valid entries of the file, which holds nothing else afterwards; a torn last line is a line that is no entry. */
async function keepValid(path: string, rules: PoolRules): Promise<PoolEntry[]> {
  if (!existsSync(path)) return [];
  const kept: PoolEntry[] = [];
  let dropped = 0;
  for await (const line of fileLines(path)) {
    const entry = parsePoolEntry(line);
    if (entry !== undefined && rules.accept(entry.key, entry.text)) kept.push(entry);
    else dropped++;
  }
  if (dropped > 0 || !(await endsInNewline(path))) {
    await replaceLines(
      path,
      kept.map((entry) => JSON.stringify(entry)),
    );
  }
  return kept;
}

async function firstValid(
  attempts: number,
  key: TextKey,
  rules: PoolRules,
  ask: () => Promise<string>,
): Promise<string> {
  for (let attempt = 0; attempt < attempts; attempt++) {
    const text = normalise(await ask());
    if (rules.accept(key, text)) return text;
  }
  throw new GenerationError(
    `[writeTextPool] the model gave no valid ${key.format} about ${key.topic} in ${attempts} tries. Texts need ${LEAST_TOKENS} to ${MOST_TOKENS} tokens and must differ from each other; what was written so far is kept.`,
  );
}
