/**
 * Similarity of two texts as Python's `difflib.SequenceMatcher` defines it (Ratcliff and Obershelp, "Pattern matching: the gestalt approach",
 * 1988), over code points.
 */
import { type ElementIndex, LongestRun, NOT_INDEXED, type Range } from "./longest-run.js";
import { codePoints } from "./unicode-text.js";

export interface SequenceMatcherOptions {
  /**
   * Leave elements that are frequent in b out of the search for runs, as difflib does by default: with `|b| ≥ 200`, those that occur more than
   * `⌊|b| / 100⌋ + 1` times. Default true. It makes the ratio of natural text erratic; see `mrcrStrict`.
   */
  autojunk?: boolean;
}

/** `a[a .. a + size)` equals `b[b .. b + size)`, in code points. */
export interface MatchingBlock {
  a: number;
  b: number;
  size: number;
}

/**
 * `2·M / T`, where M is the size of all matching blocks and T the length of both texts in code points; 1 for two empty texts.
 *
 * Not symmetric: which of several longest runs is taken depends on the order, and autojunk looks at `b` alone.
 *
 * @example
 * ratio("tide", "diet"); // 0.25
 * ratio("diet", "tide"); // 0.5
 */
export function ratio(a: string, b: string, options: SequenceMatcherOptions = {}): number {
  const pointsA = codePoints(a);
  const pointsB = codePoints(b);
  const length = pointsA.length + pointsB.length;
  if (length === 0) return 1;
  let matched = 0;
  for (const block of findBlocks(pointsA, pointsB, options)) matched += block.size;
  return (2 * matched) / length;
}

/**
 * The matching blocks in order, adjacent ones merged, and last the empty block `(|a|, |b|, 0)`.
 *
 * @example
 * matchingBlocks("abxcd", "abcd");
 * // [{ a: 0, b: 0, size: 2 }, { a: 3, b: 2, size: 2 }, { a: 5, b: 4, size: 0 }]
 */
export function matchingBlocks(a: string, b: string, options: SequenceMatcherOptions = {}): MatchingBlock[] {
  const pointsA = codePoints(a);
  const pointsB = codePoints(b);
  const merged: MatchingBlock[] = [];
  for (const block of findBlocks(pointsA, pointsB, options).sort((x, y) => x.a - y.a)) {
    const last = merged.at(-1);
    if (last && last.a + last.size === block.a && last.b + last.size === block.b) last.size += block.size;
    else merged.push(block);
  }
  merged.push({ a: pointsA.length, b: pointsB.length, size: 0 });
  return merged;
}

/** The blocks in the order they are found; ranges wait on a stack of our own, as a text may be parted thousands of times in a row. */
function findBlocks(a: Int32Array, b: Int32Array, { autojunk = true }: SequenceMatcherOptions): MatchingBlock[] {
  const { idsA, idsB, index } = indexElements(a, b, autojunk);
  const longest = new LongestRun(idsA, idsB, index);
  const blocks: MatchingBlock[] = [];
  const waiting: (Range & { most: number })[] = [];
  const visit = (lowA: number, highA: number, lowB: number, highB: number, most: number): void => {
    if (lowA < highA && lowB < highB) waiting.push({ lowA, highA, lowB, highB, most });
  };
  visit(0, a.length, 0, b.length, Math.min(a.length, b.length));
  for (let range = waiting.pop(); range; range = waiting.pop()) {
    const run = longest.find(range, range.most);
    const block = extend(a, b, range, { a: run.startA, b: run.startB, size: run.size });
    if (block.size === 0) continue;
    blocks.push(block);
    // A part of a range has no longer run of indexed elements than the whole; the left one not even an equal one, which would have come first.
    visit(range.lowA, block.a, range.lowB, block.b, run.size - 1);
    visit(block.a + block.size, range.highA, block.b + block.size, range.highB, run.size);
  }
  return blocks;
}

/** Grows a block, maybe an empty one, over equal neighbours that the index leaves out. */
function extend(a: Int32Array, b: Int32Array, range: Range, block: MatchingBlock): MatchingBlock {
  while (block.a > range.lowA && block.b > range.lowB && a[block.a - 1] === b[block.b - 1]) {
    block.a--;
    block.b--;
    block.size++;
  }
  while (
    block.a + block.size < range.highA &&
    block.b + block.size < range.highB &&
    a[block.a + block.size] === b[block.b + block.size]
  ) {
    block.size++;
  }
  return block;
}

/** Numbers the elements of b `0, 1, …` and notes their places; elements that are popular or not in b get `NOT_INDEXED`. */
function indexElements(
  a: Int32Array,
  b: Int32Array,
  autojunk: boolean,
): { idsA: Int32Array; idsB: Int32Array; index: ElementIndex } {
  const counts = new Map<number, number>();
  for (const point of b) counts.set(point, (counts.get(point) ?? 0) + 1);
  const limit = autojunk && b.length >= 200 ? Math.floor(b.length / 100) + 1 : b.length;
  const ids = new Map<number, number>();
  const first = new Int32Array(counts.size + 1);
  for (const [point, count] of counts) {
    if (count > limit) continue;
    first[ids.size + 1] = first[ids.size]! + count;
    ids.set(point, ids.size);
  }
  const idsOf = (points: Int32Array): Int32Array => points.map((point) => ids.get(point) ?? NOT_INDEXED);
  const idsB = idsOf(b);
  const places = new Int32Array(first[ids.size]!);
  const next = first.slice(0, ids.size);
  for (const [j, id] of idsB.entries()) if (id !== NOT_INDEXED) places[next[id]!++] = j;
  return { idsA: idsOf(a), idsB, index: { first, places } };
}
