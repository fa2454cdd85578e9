/**
 * Training a byte-level BPE tokenizer (Sennrich et al. 2016, arXiv:1508.07909; on bytes as in GPT-2): beginning with the 256 bytes, the most frequent pair
 * of neighbouring tokens becomes a token, again and again. Pairs are counted within words by GPT-2's rule, each distinct word once with its frequency.
 */
import { setImmediate } from "node:timers/promises";
import { OptionError } from "@llmeff/native/errors";
import { BpeWords, idLimit, keyOf } from "./bpe-words.js";
import { byteCharacters, byteLevelTokenizerJson, gpt2Words } from "./byte-level.js";
import { type HuggingFaceTokenizer, huggingFaceTokenizer } from "./hugging-face-tokenizer.js";
import { PairHeap } from "./pair-heap.js";

export interface TrainBpeOptions {
  /** Tokens in all: 256 bytes, what is learnt, and the special tokens. Fewer, if no pair is left that is frequent enough. */
  vocabSize: number;
  /** Tokens that mark something, with the last ids; in the texts they end words and are counted in none. */
  specialTokens?: readonly string[];
  /** Pairs that occur less often are not merged; default 2. */
  minFrequency?: number;
  signal?: AbortSignal;
}

/** Merges between two looks at the event loop. */
const mergesAtOnce = 256;

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}

async function countWords(
  texts: AsyncIterable<string> | Iterable<string>,
  specialTokens: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  // The longest of those that begin at a place, as in encoding.
  const longestFirst = specialTokens.toSorted((a, b) => b.length - a.length);
  const special = specialTokens.length === 0 ? undefined : new RegExp(longestFirst.map(escaped).join("|"), "u");
  for await (const text of texts) {
    signal?.throwIfAborted();
    for (const part of special === undefined ? [text] : text.split(special)) {
      for (const [word] of part.matchAll(gpt2Words)) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return counts;
}

function checkOptions({ vocabSize, specialTokens = [], minFrequency = 2 }: TrainBpeOptions): void {
  const least = 256 + specialTokens.length;
  if (!Number.isSafeInteger(vocabSize) || vocabSize < least || vocabSize >= idLimit) {
    throw new OptionError(
      `[trainBpe] vocabSize must be an integer of at least ${least} (256 bytes and the special tokens), less than ${idLimit}; received ${vocabSize}.`,
    );
  }
  if (!Number.isSafeInteger(minFrequency) || minFrequency < 1) {
    throw new OptionError(`[trainBpe] minFrequency must be a positive integer; received ${minFrequency}.`);
  }
  if (specialTokens.includes("") || new Set(specialTokens).size !== specialTokens.length) {
    throw new OptionError("[trainBpe] specialTokens must be different texts of at least one character.");
  }
  // ASCII characters stand for themselves: as special tokens they are split out before any byte is looked at.
  const byte = specialTokens.find((token) => token > "\x7f" && byteCharacters.includes(token));
  if (byte !== undefined) {
    throw new OptionError(
      `[trainBpe] the special token ${JSON.stringify(byte)} is how the byte ${byteCharacters.indexOf(byte)} is written in the vocabulary. Choose another, such as "<|${byte}|>".`,
    );
  }
}

/**
 * Learns a byte-level BPE tokenizer from texts. The same texts give the same tokenizer, whatever their order: the most frequent pair is merged, of equally
 * frequent ones that of the smaller ids, the left one first. Bytes have the ids 0 to 255.
 *
 * @param texts - each is a document: no word reaches from one into the next
 * @returns a tokenizer whose `toJSON` holds a tokenizer.json
 * @throws {OptionError} if an option is outside its domain
 *
 * @example
 * const tokenizer = await trainBpe([await readText("corpus.txt")], { vocabSize: 4096, specialTokens: ["<|end|>"] });
 * await writeFile("tokenizer.json", JSON.stringify(tokenizerJson(tokenizer)));
 */
export async function trainBpe(
  texts: AsyncIterable<string> | Iterable<string>,
  options: TrainBpeOptions,
): Promise<HuggingFaceTokenizer> {
  checkOptions(options);
  const { vocabSize, specialTokens = [], minFrequency = 2, signal } = options;
  const corpus = new BpeWords(await countWords(texts, specialTokens, signal));
  const heap = new PairHeap();
  const offer = (key: number) => {
    const count = corpus.count(key);
    if (count >= minFrequency) heap.push({ count, left: Math.floor(key / idLimit), right: key % idLimit });
  };
  for (const key of corpus.pairs()) offer(key);
  const pieces = [...byteCharacters];
  const known = new Set([...pieces, ...specialTokens]);
  const merges: [string, string][] = [];
  while (pieces.length < vocabSize - specialTokens.length) {
    const next = heap.pop();
    if (next === undefined) break;
    const { count, left, right } = next;
    const key = keyOf(left, right);
    // Counts on the heap are of the time of the offer: a pair that has become rarer is offered anew.
    if (corpus.count(key) !== count) {
      offer(key);
      continue;
    }
    const piece = pieces[left]! + pieces[right]!;
    // Where other pairs have made the same bytes a token, these stay apart: one token, one way to it.
    if (known.has(piece)) continue;
    known.add(piece);
    const token = pieces.push(piece) - 1;
    merges.push([pieces[left]!, pieces[right]!]);
    for (const changed of corpus.merge(left, right, token)) offer(changed);
    if (merges.length % mergesAtOnce === 0) {
      await setImmediate();
      signal?.throwIfAborted();
    }
  }
  return huggingFaceTokenizer(byteLevelTokenizerJson({ pieces, merges, specialTokens, splitWords: true }));
}
