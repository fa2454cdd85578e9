/** Length of the longest common subsequence, by bits. */

/** Bits `i` of the words of `masks(c)` say where `a` has the code unit `c`. */
function positionMasks(a: string, words: number): Map<number, Int32Array> {
  const masks = new Map<number, Int32Array>();
  for (let i = 0; i < a.length; i++) {
    const code = a.charCodeAt(i);
    const mask = masks.get(code) ?? new Int32Array(words);
    mask[i >> 5]! |= 1 << (i & 31);
    masks.set(code, mask);
  }
  return masks;
}

/** One bits of a 32-bit word. */
function popCount(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/**
 * Longest common subsequence of two strings in code units, 32 cells of the dynamic programme at once (Hyyrö 2004, "Bit-parallel
 * LCS-length computation revisited"). It bounds what any sequence matcher can match.
 */
export function commonSubsequenceLength(a: string, b: string): number {
  const words = (a.length + 31) >> 5;
  const masks = positionMasks(a, words);
  // A zero bit of `row` marks a step of the current row of the programme.
  const row = new Int32Array(words).fill(-1);
  for (let j = 0; j < b.length; j++) {
    const mask = masks.get(b.charCodeAt(j));
    if (mask === undefined) continue;
    let carry = 0;
    for (let w = 0; w < words; w++) {
      const value = row[w]!;
      const matched = value & mask[w]!;
      const sum = (value >>> 0) + (matched >>> 0) + carry;
      carry = sum > 0xffffffff ? 1 : 0;
      row[w] = sum | 0 | (value & ~matched);
    }
  }
  let length = 0;
  for (const word of row) length += popCount(~word);
  return length;
}
