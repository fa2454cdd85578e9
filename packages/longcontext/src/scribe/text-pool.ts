/** Texts that a model wrote, kept in a file of JSON lines, as a source for chats. */
import { createHash } from "node:crypto";
import type { Random } from "@llmeff/data";
import { FormatError } from "@llmeff/native/errors";
import { fileLines } from "../file-lines.js";
import { pick } from "../random.js";
import { noUsage, type UsageTotals } from "../runner/cost.js";
import { FORMAT_NAMES } from "./formats.js";
import { STYLE_NAMES } from "./styles.js";
import type { TextKey } from "./text.js";
import type { KeyDepth, TextSession, TextSource } from "./text-source.js";

export interface PoolEntry {
  key: TextKey;
  /** How the key was varied, such as `as a warning`. */
  tweak: string;
  text: string;
  /** Who wrote it, and when (ISO 8601). */
  model: string;
  date: string;
  /** What it took, with the replies before it that were of no use. */
  took?: UsageTotals;
}

export const keyName = ({ format, topic, style }: TextKey): string => `${format}|${topic}|${style}`;

/** What replies took of which no text came. */
export interface VainReplies {
  took: UsageTotals;
}

/** What a line of a pool holds; undefined if it is no such line. */
export function parsePoolLine(line: string): PoolEntry | VainReplies | undefined {
  let parsed: Partial<PoolEntry> | null;
  try {
    parsed = JSON.parse(line) as Partial<PoolEntry> | null;
  } catch {
    return undefined;
  }
  if (parsed?.took !== undefined) {
    if (!Object.keys(noUsage()).every((name) => Number.isFinite(parsed.took?.[name as keyof UsageTotals]))) {
      return undefined;
    }
    if (Object.keys(parsed).length === 1) return parsed as VainReplies;
  }
  const strings = [parsed?.key?.topic, parsed?.tweak, parsed?.text, parsed?.model, parsed?.date];
  const known =
    FORMAT_NAMES.includes(parsed?.key?.format as never) && STYLE_NAMES.includes(parsed?.key?.style as never);
  return known && strings.every((value) => typeof value === "string") ? (parsed as PoolEntry) : undefined;
}

/**
 * A source that gives the texts of these entries, each once a chat.
 *
 * @example
 * mrcr({ seed: 1, index: 0, maxTokens: 65536 }, { texts: textPool(entries) });
 */
export function textPool(entries: readonly PoolEntry[]): TextSource {
  const byKey = new Map<string, { key: TextKey; texts: string[] }>();
  const hash = createHash("sha256");
  for (const { key, text } of entries) {
    hash.update(JSON.stringify([keyName(key), text]));
    const known = byKey.get(keyName(key)) ?? { key, texts: [] };
    known.texts.push(text);
    byKey.set(keyName(key), known);
  }
  const id = `pool-${hash.digest("hex").slice(0, 16)}`;
  return { id, open: (keyDepth) => new PoolSession([...byKey.values()], keyDepth) };
}

/**
 * The pool of a file.
 *
 * @throws {FormatError} naming the line that holds no entry; {@link IoError} if the file can't be read
 */
export async function readTextPool(path: string): Promise<TextSource> {
  const entries: PoolEntry[] = [];
  let number = 0;
  for await (const line of fileLines(path)) {
    number++;
    if (line === "") continue;
    const parsed = parsePoolLine(line);
    if (parsed === undefined) {
      throw new FormatError(
        `[readTextPool] ${path}, line ${number}: expected an entry with key, tweak, text, model and date. Let \`writeTextPool\` complete the file.`,
      );
    }
    if ("text" in parsed) entries.push(parsed);
  }
  return textPool(entries);
}

class PoolSession implements TextSession {
  readonly topics: readonly string[];
  readonly #left: { key: TextKey; texts: string[] }[];

  constructor(keys: readonly { key: TextKey; texts: readonly string[] }[], keyDepth: KeyDepth) {
    this.#left = keys
      .filter(({ key }) => keyDepth === 3 || key.style === "plain")
      .map(({ key, texts }) => ({ key, texts: [...texts] }));
    this.topics = [...new Set(this.#left.map(({ key }) => key.topic))];
  }

  #pickKey(random: Random, fits: (key: TextKey) => boolean, least: number): TextKey | undefined {
    const keys = this.#left.filter(({ key, texts }) => texts.length >= least && fits(key));
    return keys.length === 0 ? undefined : pick(random, keys).key;
  }

  drawKey(random: Random, topic: string, least: number): TextKey | undefined {
    return this.#pickKey(random, (key) => key.topic === topic, least);
  }

  nearMiss(random: Random, part: keyof TextKey, near: TextKey, topics: readonly string[]): TextKey | undefined {
    const rest = (["format", "topic", "style"] as const).filter((name) => name !== part);
    const fits = (key: TextKey): boolean =>
      key[part] !== near[part] &&
      rest.every((name) => key[name] === near[name]) &&
      (part !== "topic" || topics.includes(key.topic));
    return this.#pickKey(random, fits, 1);
  }

  write(random: Random, key: TextKey): string | undefined {
    const texts = this.#left.find((entry) => keyName(entry.key) === keyName(key))?.texts;
    return texts === undefined || texts.length === 0 ? undefined : texts.splice(random.integer(0, texts.length), 1)[0];
  }
}
