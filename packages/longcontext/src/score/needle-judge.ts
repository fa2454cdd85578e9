/** The scale of the classic needle-in-a-haystack test, whose judge gives 1 to 10. */
import { OptionError } from "@llmeff/native/errors";

/**
 * A judge's score on our scale, `(score − 1) / 9`.
 *
 * @throws {OptionError} if the score isn't in 1..10
 */
export function judgeScore(score: number): number {
  if (!(score >= 1 && score <= 10)) {
    throw new OptionError(`[judgeScore] a judge's score must be in 1..10; received ${score}.`);
  }
  return (score - 1) / 9;
}
