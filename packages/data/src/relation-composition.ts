/**
 * Relation composition: a generated task in which an answer depends on two other tokens at once.
 *
 * A sample is two random Boolean n×n matrices A and B; the query (i, j) asks whether some k has A_ik and B_kj. One layer of
 * dot-product attention weighs single tokens, one layer of 2-simplicial attention weighs pairs (A_ik, B_kj), so the task tells the two apart.
 *
 * Sequence of `3n²` tokens: A row by row (tokens 0, 1), B row by row (tokens 2, 3), then all n² queries (token 4), answered at once;
 * loss falls only on the queries, with targets 0 and 1.
 */
import { type Batch, IGNORE_INDEX, type JsonObject, requireInteger } from "./batch.js";
import { fillUniform } from "./philox-fill.js";
import { streamOf } from "./random.js";
import { requireOneOf, SampledTask, type SampledTaskOptions } from "./sampled-task.js";

export interface RelationCompositionOptions extends SampledTaskOptions {
  /** n, the side of the matrices; default 4. */
  size?: number;
  /**
   * What a token says about its place. `"positional"` (default): nothing, five tokens in all, for models with absolute position embeddings.
   * `"tagged"`: every place has tokens of its own, `5n²` in all, for models whose positions are only relative, such as rotary ones:
   * to those, all queries would otherwise look alike.
   */
  encoding?: "positional" | "tagged";
}

/**
 * Endless batches of the task. Sample `index` of (seed, split) is always the same, whatever the batch size.
 *
 * @example
 * const train = new RelationComposition({ batchSize: 128 });
 * const { tokens, targets } = train.next(); // [128, 48] each
 */
export class RelationComposition extends SampledTask {
  readonly size: number;
  /** T = 3n² */
  readonly seqLen: number;
  readonly vocabSize: number;
  readonly encoding: "positional" | "tagged";
  protected readonly answers: number;
  readonly #stream: bigint;

  constructor(options: RelationCompositionOptions) {
    super("RelationComposition", options);
    const { size = 4, encoding = "positional" } = options;
    this.size = requireInteger("RelationComposition", "size", size, 1);
    this.encoding = requireOneOf("RelationComposition", "encoding", encoding, ["positional", "tagged"] as const);
    this.answers = size * size;
    this.seqLen = 3 * size * size;
    this.vocabSize = encoding === "tagged" ? 5 * size * size : 5;
    // The split is part of the stream's name; the sample index selects blocks inside the stream.
    this.#stream = streamOf(`relation-composition/${size}/${this.split}`);
  }

  protected write(first: number, count: number): Batch {
    const { size, seqLen } = this;
    const tokens = new Int32Array(count * seqLen);
    const targets = new Int32Array(count * seqLen).fill(IGNORE_INDEX);
    const entries = 2 * size * size;
    const random = new Float64Array(entries);
    const density = balancedDensity(size);
    for (let b = 0; b < count; b++) {
      fillUniform(random, { seed: this.seed, stream: this.#stream, offset: (first + b) * entries });
      const row = b * seqLen;
      for (let i = 0; i < entries; i++) tokens[row + i] = random[i]! < density ? 1 : 0;
      composeInto(targets.subarray(row + entries, row + seqLen), tokens.subarray(row, row + entries), size);
      this.#encode(tokens.subarray(row, row + seqLen));
    }
    return { tokens, targets, batchSize: count, seqLen };
  }

  protected identity(): JsonObject {
    const { size, split, encoding } = this;
    return { kind: "relation-composition", seed: String(this.seed), size, split, encoding };
  }

  /** Turns the bits of A and B, followed by n² queries, into tokens in place. */
  #encode(row: Int32Array): void {
    const places = this.size * this.size;
    for (let i = 0; i < places; i++) {
      row[places + i]! += 2;
      row[2 * places + i] = 4;
    }
    if (this.encoding === "tagged") {
      for (let i = 0; i < row.length; i++) row[i] = 5 * (i % places) + row[i]!;
    }
  }
}

/** The density of ones for which half of the answers are positive: `1 - (1 - p²)^n = 1/2`. */
export function balancedDensity(size: number): number {
  return Math.sqrt(1 - 2 ** (-1 / size));
}

/**
 * Boolean product: `out[i,j] = 1` if some k has `A_ik` and `B_kj`, else 0.
 *
 * @param out - `[n, n]`
 * @param bits - A then B, each `[n, n]`, entries 0 and 1
 */
function composeInto(out: Int32Array, bits: Int32Array, n: number): void {
  out.fill(0);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < n; k++) {
      if (bits[i * n + k] === 0) continue;
      for (let j = 0; j < n; j++) out[i * n + j]! |= bits[n * n + k * n + j]!;
    }
  }
}
