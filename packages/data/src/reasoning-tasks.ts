/**
 * Generated tasks that separate interactions of three tokens from those of two, with exact labels: Match2 and Match3 after arXiv:2306.02896,
 * parity of places, composition of functions, induction from single keys and from pairs. Sequences are meant for causal models with absolute positions:
 * what is given comes first, then the questions, which alone carry loss.
 */
import { OptionError } from "@llmeff/native/errors";
import { type Batch, IGNORE_INDEX, type JsonObject, requireInteger } from "./batch.js";
import { Random } from "./random.js";
import { SampledTask, type SampledTaskOptions } from "./sampled-task.js";

/** What a sample of a task is. */
export interface ReasoningTaskDefinition {
  /** With all numbers that a sample depends on: tasks of different names draw from different streams. */
  readonly name: string;
  /** T */
  readonly seqLen: number;
  readonly vocabSize: number;
  /** Targets of a sample. */
  readonly answers: number;
  /**
   * Writes one sample.
   *
   * @param tokens - `[T]`
   * @param targets - `[T]`, ignored everywhere until something is written
   */
  write(random: Random, tokens: Int32Array, targets: Int32Array): void;
}

/** 32-bit words that a sample has for itself. Rejected draws make their number random, a few hundred at most. */
const WORDS_A_SAMPLE = 2 ** 16;
/** A token takes two words at most, so that half of them are left for rejected draws. */
const MOST_TOKENS = WORDS_A_SAMPLE / 4;

/**
 * Endless batches of a task.
 *
 * @example
 * const train = new ReasoningTask(matchTask({ count: 16, modulus: 160, terms: 3 }), { batchSize: 128 });
 * const { tokens, targets } = train.next(); // [128, 33] each
 *
 * @throws {OptionError} if a sample has more tokens, or a vocabulary more words, than there are random numbers or ids for
 */
export class ReasoningTask extends SampledTask {
  readonly definition: ReasoningTaskDefinition;
  /** T */
  readonly seqLen: number;
  readonly vocabSize: number;
  protected readonly answers: number;
  readonly #random: Random;

  constructor(definition: ReasoningTaskDefinition, options: SampledTaskOptions) {
    super("ReasoningTask", options);
    const { seqLen, vocabSize } = definition;
    if (seqLen > MOST_TOKENS || vocabSize > 2 ** 31)
      throw new OptionError(
        `[ReasoningTask] expected at most ${MOST_TOKENS} tokens of 2³¹ different ones; ${definition.name} has ${seqLen} of ${vocabSize}. Make it smaller.`,
      );
    this.definition = definition;
    this.seqLen = seqLen;
    this.vocabSize = vocabSize;
    this.answers = definition.answers;
    this.#random = new Random(this.seed, `${definition.name}/${this.split}`);
  }

  protected write(first: number, count: number): Batch {
    const { definition, seqLen } = this;
    const tokens = new Int32Array(count * seqLen);
    const targets = new Int32Array(count * seqLen).fill(IGNORE_INDEX);
    for (let b = 0; b < count; b++) {
      this.#random.position = (first + b) * WORDS_A_SAMPLE;
      const row = [b * seqLen, (b + 1) * seqLen] as const;
      definition.write(this.#random, tokens.subarray(...row), targets.subarray(...row));
    }
    return { tokens, targets, batchSize: count, seqLen };
  }

  protected identity(): JsonObject {
    return { kind: "reasoning", task: this.definition.name, seed: String(this.seed), split: this.split };
  }
}

export interface MatchOptions {
  /** n: numbers of a sample. */
  count: number;
  /** M: the numbers are uniform in `0 .. M - 1`. */
  modulus: number;
  /** 2 for Match2, 3 for Match3. */
  terms: 2 | 3;
}

/**
 * Match2: `y_i = 1` if some `j ≠ i` has `x_i + x_j ≡ 0 (mod M)`. Match3: `y_i = 1` if distinct `j, k ≠ i` have `x_i + x_j + x_k ≡ 0 (mod M)`.
 * Measured positive rates of Match3: 0.485 for n = 16, M = 160; 0.474 for n = 32, M = 720.
 *
 * Sequence of `2n + 1` tokens: a token that stands for nothing (2M), `x_1 … x_n`, and the same numbers once more as questions (M + x_i), answered by y_i.
 */
export function matchTask({ count, modulus, terms }: MatchOptions): ReasoningTaskDefinition {
  requireInteger("matchTask", "count", count, terms);
  requireInteger("matchTask", "modulus", modulus, 2);
  requireTerms("matchTask", terms);
  return {
    name: `match${terms}/${count}/${modulus}`,
    seqLen: 2 * count + 1,
    vocabSize: 2 * modulus + 1,
    answers: count,
    write(random, tokens, targets) {
      tokens[0] = 2 * modulus;
      const numbers = tokens.subarray(1, 1 + count);
      for (let i = 0; i < count; i++) {
        numbers[i] = random.integer(0, modulus);
        tokens[1 + count + i] = modulus + numbers[i]!;
      }
      const answer = terms === 2 ? pairMatches : tripleMatches;
      for (let i = 0; i < count; i++) targets[1 + count + i] = answer(numbers, i, modulus) ? 1 : 0;
    },
  };
}

function pairMatches(x: Int32Array, i: number, modulus: number): boolean {
  return x.some((value, j) => j !== i && (x[i]! + value) % modulus === 0);
}

function tripleMatches(x: Int32Array, i: number, modulus: number): boolean {
  for (let j = 0; j < x.length; j++) {
    if (j === i) continue;
    for (let k = j + 1; k < x.length; k++) {
      if (k !== i && (x[i]! + x[j]! + x[k]!) % modulus === 0) return true;
    }
  }
  return false;
}

export interface ParityOptions {
  /** n: bits of a sample. */
  bits: number;
  /** Places that a question names: 2, or 3. */
  terms: 2 | 3;
  /** Questions of a sample. */
  questions: number;
}

/**
 * Parity of places: of bits `b_0 … b_{n-1}`, a question names distinct places p, q (and r); the answer is `b_p xor b_q (xor b_r)`.
 *
 * Sequence of `n + questions` tokens: the bits (0, 1), then the questions, one token for each set of places: 2, 3, … in the lexicographic
 * order of the sets.
 */
export function parityTask({ bits, terms, questions }: ParityOptions): ReasoningTaskDefinition {
  requireTerms("parityTask", terms);
  requireInteger("parityTask", "bits", bits, terms);
  requireInteger("parityTask", "questions", questions, 1);
  const sets = placesOf(bits, terms);
  return {
    name: `parity${terms}/${bits}/${questions}`,
    seqLen: bits + questions,
    vocabSize: 2 + sets.length,
    answers: questions,
    write(random, tokens, targets) {
      for (let i = 0; i < bits; i++) tokens[i] = random.integer(0, 2);
      for (let at = bits; at < tokens.length; at++) {
        const asked = random.integer(0, sets.length);
        tokens[at] = 2 + asked;
        targets[at] = sets[asked]!.reduce((parity, place) => parity ^ tokens[place]!, 0);
      }
    },
  };
}

/** The sets of `terms` of `0 .. bits - 1`, each ascending, in lexicographic order. */
function placesOf(bits: number, terms: number): number[][] {
  if (terms === 0) return [[]];
  const first = Array.from({ length: bits }, (_, place) => place);
  return first.flatMap((place) =>
    placesOf(bits - place - 1, terms - 1).map((rest) => [place, ...rest.map((other) => place + 1 + other)]),
  );
}

export interface FunctionCompositionOptions {
  /** m: the functions map `{0 .. m - 1}` into itself. */
  size: number;
  /** Functions of a sample: 2 for g(f(x)), 3 for h(g(f(x))). */
  functions: number;
}

/**
 * Composition of random functions given as tables.
 *
 * Sequence of `(functions + 1) · m` tokens: the pairs (x, f_k(x)) of all functions as one token each (`k·m² + x·m + f_k(x)`), shuffled together,
 * then every x as a question (`functions·m² + x`), answered by `… f_1(f_0(x))`.
 */
export function functionCompositionTask({ size, functions }: FunctionCompositionOptions): ReasoningTaskDefinition {
  requireInteger("functionCompositionTask", "size", size, 2);
  requireInteger("functionCompositionTask", "functions", functions, 1);
  const given = functions * size;
  return {
    name: `function-composition/${size}/${functions}`,
    seqLen: given + size,
    vocabSize: functions * size ** 2 + size,
    answers: size,
    write(random, tokens, targets) {
      const table = Int32Array.from({ length: given }, () => random.integer(0, size));
      tokens.set(random.shuffle(table.map((value, place) => place * size + value)));
      for (let x = 0; x < size; x++) {
        let value = x;
        for (let k = 0; k < functions; k++) value = table[k * size + value]!;
        tokens[given + x] = functions * size ** 2 + x;
        targets[given + x] = value;
      }
    },
  };
}

export interface InductionOptions {
  /** Tokens that a key has: 1 for "a" → b, 2 for "a b" → c. */
  keys: 1 | 2;
  /** Symbols for each token of a key; every combination of them occurs once. */
  size: number;
  /** Different values. */
  values: number;
  /** Different keys that are asked. */
  questions: number;
}

/**
 * Induction: a sequence of keys with values, then keys alone, whose values must follow. With two tokens a key, every first and every second token occurs
 * with several values, so that the answer depends on the pair and on neither alone.
 *
 * Sequence of `(keys + 1) · size^keys + keys · questions` tokens, in random order of keys. Tokens: `0 .. size - 1` the first of a key, the next `size` its
 * second, then the values; targets are tokens of values, at the last token of a question.
 */
export function inductionTask({ keys, size, values, questions }: InductionOptions): ReasoningTaskDefinition {
  if (keys !== 1 && keys !== 2) throw new OptionError(`[inductionTask] keys must be 1 or 2; received ${keys}.`);
  requireInteger("inductionTask", "size", size, 2);
  requireInteger("inductionTask", "values", values, 2);
  const count = size ** keys;
  if (requireInteger("inductionTask", "questions", questions, 1) > count)
    throw new OptionError(`[inductionTask] questions must be at most the ${count} keys; received ${questions}.`);
  const spell = (key: number) => (keys === 1 ? [key] : [Math.floor(key / size), size + (key % size)]);
  const given = (keys + 1) * count;
  return {
    name: `induction${keys}/${size}/${values}/${questions}`,
    seqLen: given + keys * questions,
    vocabSize: keys * size + values,
    answers: questions,
    write(random, tokens, targets) {
      const chosen = new Int32Array(count);
      do {
        for (let key = 0; key < count; key++) chosen[key] = keys * size + random.integer(0, values);
      } while (keys === 2 && !dependsOnBoth(chosen, size));
      const order = random.permutation(count);
      for (const [i, key] of order.entries()) tokens.set([...spell(key), chosen[key]!], (keys + 1) * i);
      const asked = random.permutation(count).subarray(0, questions);
      for (const [i, key] of asked.entries()) {
        tokens.set(spell(key), given + keys * i);
        targets[given + keys * (i + 1) - 1] = chosen[key]!;
      }
    },
  };
}

/** Whether every row and every column of a `[size, size]` table has different values. */
function dependsOnBoth(table: Int32Array, size: number): boolean {
  const varies = (first: number, step: number) => {
    for (let i = 1; i < size; i++) if (table[first + i * step] !== table[first]) return true;
    return false;
  };
  for (let i = 0; i < size; i++) if (!varies(i * size, 1) || !varies(i, size)) return false;
  return true;
}

function requireTerms(where: string, terms: number): void {
  if (terms !== 2 && terms !== 3) throw new OptionError(`[${where}] terms must be 2 or 3; received ${terms}.`);
}
