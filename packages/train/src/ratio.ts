/** A mean over targets that come in sequences, with the standard error that their dependence inside a sequence leaves. */

export interface RatioEstimate {
  /** `Σ s_i / Σ n_i`; NaN without targets. */
  mean: number;
  /** NaN for fewer than two sequences. */
  standardError: number;
  /** `Σ n_i` */
  count: number;
}

/**
 * Sums `s_i` over `n_i` targets of sequence i. The targets of one sequence are dependent, sequences are taken as independent; the mean
 * `R = Σ s_i / Σ n_i` is a ratio, whose variance to first order is `m / (m − 1) · Σ (s_i − R n_i)² / (Σ n_i)²` for m sequences
 * (Cochran, Sampling Techniques, §6.4). With equal n_i this is the usual `s / √m` of the sequence means.
 */
export class RatioEstimator {
  readonly #sums: number[] = [];
  readonly #counts: number[] = [];

  /** A sequence without targets says nothing and is not counted. */
  add(sum: number, count: number): void {
    if (count === 0) return;
    this.#sums.push(sum);
    this.#counts.push(count);
  }

  estimate(): RatioEstimate {
    const sequences = this.#sums.length;
    const total = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
    const count = total(this.#counts);
    const mean = total(this.#sums) / count;
    const residuals = this.#sums.map((sum, i) => (sum - mean * this.#counts[i]!) ** 2);
    const variance = ((sequences / (sequences - 1)) * total(residuals)) / count ** 2;
    return { mean, standardError: sequences < 2 ? Number.NaN : Math.sqrt(variance), count };
  }
}
