/** Sentences about results, made from the numbers alone. */
import { formatCompact } from "@llmeff/report";
import type { Part } from "./load-study.js";
import type { ArmResult } from "./outcome.js";
import { type MetricWords, metricWords } from "./tables.js";

const times = (factor: number) => `${factor < 10 ? factor.toFixed(1) : factor.toFixed(0)} times`;

/** What a part found, in a few sentences. */
export function findings(part: Part, results: readonly ArmResult[]): string {
  const words = metricWords(part);
  const sentences = [race(results, words), ...finish(part, results, words), ...misses(part, results, words)];
  return sentences.filter((sentence) => sentence !== "").join(" ");
}

/** Who reached the target, in order of tokens. */
function race(results: readonly ArmResult[], { target }: MetricWords): string {
  const reached = results
    .flatMap(({ name, tokensToTarget }) => (tokensToTarget === null ? [] : [{ name, tokens: tokensToTarget }]))
    .sort((a, b) => a.tokens - b.tokens);
  const [first, ...others] = reached;
  if (first === undefined) return `No arm reached ${target}.`;
  const lead = `${first.name} reached ${target} first, after ${formatCompact(first.tokens)} tokens`;
  if (others.length === 0) return results.length === 1 ? `${lead}.` : `${lead}; no other arm did.`;
  const rest = others.map(({ name, tokens }) =>
    tokens === first.tokens
      ? `${name} at the same evaluation`
      : `${name} after ${formatCompact(tokens)} (${times(tokens / first.tokens)} as many)`,
  );
  return `${lead}, then ${enumerate(rest)}.`;
}

/** Who ended best, if the arms saw the same number of tokens, and by how much. */
function finish(part: Part, results: readonly ArmResult[], words: MetricWords): string[] {
  if (results.length < 2 || new Set(results.map(({ outcome }) => outcome.tokens)).size > 1) return [];
  const sign = part.metric === "accuracy" ? -1 : 1;
  const ranked = [...results].sort((a, b) => sign * (a.outcome.value - b.outcome.value));
  const [best, second] = ranked as [ArmResult, ArmResult, ...ArmResult[]];
  const last = ranked.at(-1)!;
  const gap = Math.abs(best.outcome.value - second.outcome.value);
  const error = Math.hypot(best.outcome.standardError, second.outcome.standardError);
  const verdict =
    gap > 2 * error
      ? "more than two standard errors of the difference"
      : "within two standard errors of the difference, so no more than a tendency";
  const show = (value: number) => showValue(part, value, words);
  return [
    `After the same ${formatCompact(best.outcome.tokens)} tokens, ${best.name} ended best at ${show(best.outcome.value)}, ` +
      `ahead of ${second.name} (${show(second.outcome.value)}) by ${show(gap)}: ${verdict}.`,
    results.length > 2 ? `${last.name} ended last at ${show(last.outcome.value)}.` : "",
  ];
}

/** Who did not reach the target that others reached. */
function misses(part: Part, results: readonly ArmResult[], words: MetricWords): string[] {
  const missed = results.filter(({ tokensToTarget }) => tokensToTarget === null);
  if (missed.length === results.length) return [];
  return missed.map(
    ({ name, outcome }) =>
      `${name} did not get there in ${formatCompact(outcome.tokens)} tokens and ended at ${showValue(part, outcome.value, words)}.`,
  );
}

function showValue(part: Part, value: number, { unit }: MetricWords): string {
  return part.metric === "accuracy" ? `${(100 * value).toFixed(1)} %` : `${value.toFixed(3)} ${unit}`;
}

function enumerate(items: readonly string[]): string {
  return items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;
}

/** How the arms were compared. */
export function conditions(part: Part, results: readonly ArmResult[]): string {
  const sizes = results.map(({ outcome }) => outcome.parameters);
  const spread = 100 * (Math.max(...sizes) / Math.min(...sizes) - 1);
  const same =
    part.equalParameters === true
      ? `The arms have the same number of parameters within ${spread.toFixed(1)} %.`
      : `The arms have ${formatCompact(Math.min(...sizes))} to ${formatCompact(Math.max(...sizes))} parameters.`;
  return (
    `${same} All read the same batches in the same order, and each uses the best of ${part.arms[0]!.learningRates.length} learning rates of its own, ` +
    "found by a sweep of equal size for every arm. Each arm is one run with one seed."
  );
}
