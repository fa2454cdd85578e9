/** Merging sets of samples that were drawn up to different lengths (arXiv:2409.12640 §3.2). */
import { OptionError } from "@llmeff/native/errors";

/**
 * Weight of a sample in the merged sets: 1 over the number of sets that reach its length. With sets up to 32K, 128K and 1M, a sample of at most
 * 32K weighs 1/3, one of at most 128K 1/2, a longer one 1, so that each length counts as in one set alone.
 *
 * @param limits - longest prompt of each merged set, in tokens
 * @throws {OptionError} if no set reaches so far
 */
export function stackWeight(limits: readonly number[], promptTokens: number): number {
  const reaching = limits.filter((limit) => limit >= promptTokens).length;
  if (reaching === 0) {
    throw new OptionError(
      `[stackWeight] a sample of ${promptTokens} tokens is beyond all sets (${limits.join(", ")}). Name the set that it comes from.`,
    );
  }
  return 1 / reaching;
}
