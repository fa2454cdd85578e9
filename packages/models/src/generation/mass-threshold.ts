/** Where the largest values of an array end that have a given mass together: a selection, not a sort. */

export interface MassThreshold {
  /** The values above it have less mass than was asked for; with those equal to it they have as much. */
  value: number;
  /** Mass of the values above it. */
  above: number;
}

/** Bits that are told apart in a pass: their buckets stay in the nearest cache. */
const digitBits = 11;
const buckets = 2 ** digitBits;

/** A digit of the values: bits of the first or the second of the two words that a float64 is. */
interface Digit {
  /** 1 for the word of the sign, the exponent and the first bits of the fraction, as on all processors that Node runs on. */
  word: 0 | 1;
  shift: number;
}

/**
 * The value at which masses, added from the largest value down, reach `target`; the smallest value that has any if they never do. The mass of a
 * value is the value itself, or 1 where values are counted.
 *
 * A radix selection: each pass adds up masses by the first bits in which values differ, and goes on with those values that the target falls among. At most
 * seven passes tell any two values apart, so that the time is linear whatever they are; a sort takes longest where a distribution is flat and most
 * of it is kept.
 *
 * @param values - `[n]`, at least one, none NaN; none negative unless they are counted
 * @param target - above 0
 */
export function massThreshold(values: Float64Array, target: number, { counted = false } = {}): MassThreshold {
  const { left, words } = copied(values);
  const masses = new Float64Array(buckets);
  let length = values.length;
  let above = 0;
  for (let digit = firstDifference(words, length); digit !== undefined; digit = firstDifference(words, length)) {
    const { word, shift } = digit;
    masses.fill(0);
    for (let i = 0; i < length; i++) masses[bucketOf(words, i, word, shift)]! += counted ? 1 : left[i]!;
    let bucket = buckets - 1;
    let [lowest, aboveLowest] = [0, above];
    for (; bucket >= 0 && above + masses[bucket]! < target; bucket--) {
      if (masses[bucket]! > 0) [lowest, aboveLowest] = [bucket, above];
      above += masses[bucket]!;
    }
    // By rounding, or because there isn't as much.
    if (bucket < 0) [bucket, above] = [lowest, aboveLowest];
    let kept = 0;
    for (let i = 0; i < length; i++) {
      left[kept] = left[i]!;
      // 1 for values of the bucket, 0 for others: a branch that goes either way would cost more than the rest.
      kept += ((bucketOf(words, i, word, shift) ^ bucket) - 1) >>> 31;
    }
    length = kept;
  }
  return { value: left[0]!, above };
}

/** The first digit in which values differ, from their first differing bit on; undefined if all are the same. */
function firstDifference(words: Int32Array, length: number): Digit | undefined {
  let [first, second] = [0, 0];
  for (let i = 0; i < length; i++) {
    first |= words[2 * i + 1]! ^ words[1]!;
    second |= words[2 * i]! ^ words[0]!;
  }
  if ((first | second) === 0) return undefined;
  const shift = 32 - digitBits - Math.clz32(first === 0 ? second : first);
  return { word: first === 0 ? 0 : 1, shift: Math.max(0, shift) };
}

/** The digit of a value. In the order of their bits lie numbers whose sign is turned over, negative ones with all other bits. */
function bucketOf(words: Int32Array, i: number, word: 0 | 1, shift: number): number {
  const turned = (words[2 * i + 1]! >> 31) | (word << 31);
  return ((words[2 * i + word]! ^ turned) >>> shift) & (buckets - 1);
}

let scratch = new Float64Array(0);

/** The values, and their bits, in memory that is used over and over: a large array of its own costs more than the selection. */
function copied(values: Float64Array): { left: Float64Array; words: Int32Array } {
  if (scratch.length < values.length) scratch = new Float64Array(values.length);
  scratch.set(values);
  return { left: scratch, words: new Int32Array(scratch.buffer) };
}
