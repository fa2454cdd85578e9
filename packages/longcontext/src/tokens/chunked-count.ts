/** Token counts of long texts, piece by piece: memory does not grow with the text, and pieces seen before are not counted again. */

const LEAST_CHUNK = 16_384;
const MOST_CHUNK = 49_152;
/** Characters that decide about a cut, and on each side of one that are counted again. */
const FINGERPRINT = 12;
const WINDOW = 128;
const MOST_KNOWN = 65_536;

/** 53 bits: two multiplicative hashes of the code units, mixed at the end. */
function hash53(text: string): number {
  let a = 0xdeadbeef;
  let b = 0x41c6ce57;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    a = Math.imul(a ^ code, 0x9e3779b1);
    b = Math.imul(b ^ code, 0x5f356495);
  }
  a = Math.imul(a ^ (a >>> 16), 0x85ebca6b) ^ Math.imul(b ^ (b >>> 13), 0xc2b2ae35);
  b = Math.imul(b ^ (b >>> 16), 0x85ebca6b) ^ Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
  return (a >>> 0) * 2 ** 21 + (b >>> 11);
}

const isBlank = (code: number): boolean => code === 0x20 || code === 0x0a;

/** Whether the characters before `at` ask for a cut; depends on them alone, so the same text is cut alike wherever it stands. */
function asksForCut(text: string, at: number): boolean {
  let h = 0;
  for (let i = at - FINGERPRINT; i < at; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return ((h ^ (h >>> 15)) & 0x3f) === 0;
}

/** Where the chunk that begins at `from` ends: before a blank if there is one, never between the halves of a surrogate pair. */
function chunkEnd(text: string, from: number): number {
  const limit = Math.min(text.length, from + MOST_CHUNK);
  if (limit === text.length && limit - from <= LEAST_CHUNK) return limit;
  let lastBlank = -1;
  for (let at = from + LEAST_CHUNK; at < limit; at++) {
    if (!isBlank(text.charCodeAt(at))) continue;
    if (asksForCut(text, at)) return at;
    lastBlank = at;
  }
  if (limit === text.length) return limit;
  if (lastBlank > 0) return lastBlank;
  const low = text.charCodeAt(limit);
  return low >= 0xdc00 && low < 0xe000 ? limit - 1 : limit;
}

/** What a counter of long texts needs to see at once: a whole chunk and the characters behind its cut. */
const LOOK_AHEAD = MOST_CHUNK + WINDOW;

export interface ChunkedCounter {
  count(text: string): number;
  /** The same for a text in pieces, of which only about a chunk is held. */
  countPieces(pieces: Iterable<string>): number;
}

/**
 * A counter that cuts long texts. Tokens are not additive, so at each cut what stands around it is counted together and apart, and the
 * difference is added: the sum is that of the whole text wherever a cut changes tokens no further than 128 characters away.
 *
 * @param countWhole - counts a text at once
 */
export function chunkedCount(countWhole: (text: string) => number): ChunkedCounter {
  const known = new Map<number, number>();
  const remembered = (text: string, count: (text: string) => number): number => {
    const key = hash53(text);
    const found = known.get(key);
    if (found !== undefined) return found;
    if (known.size >= MOST_KNOWN) known.clear();
    const counted = count(text);
    known.set(key, counted);
    return counted;
  };
  const atCut = (text: string, at: number): number => {
    const left = text.slice(Math.max(0, at - WINDOW), at);
    const right = text.slice(at, at + WINDOW);
    return remembered(`${left}\0${right}`, () => countWhole(left + right) - countWhole(left) - countWhole(right));
  };
  const countPieces = (pieces: Iterable<string>): number => {
    let tokens = 0;
    let rest = "";
    let isFirst = true;
    const takeChunk = (): void => {
      const to = chunkEnd(rest, 0);
      tokens += remembered(rest.slice(0, to), countWhole);
      if (to < rest.length) tokens += atCut(rest, to);
      rest = rest.slice(to);
      isFirst = false;
    };
    for (const piece of pieces) {
      rest += piece;
      while (rest.length > LOOK_AHEAD) takeChunk();
    }
    if (isFirst && rest.length <= LEAST_CHUNK) return countWhole(rest);
    while (rest.length > 0) takeChunk();
    return tokens;
  };
  return { count: (text) => (text.length <= LEAST_CHUNK ? countWhole(text) : countPieces([text])), countPieces };
}
