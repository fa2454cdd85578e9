/** Sentences about results, made from the numbers alone. */
import { formatCompact } from "@llmeff/report";
import { type ArmResult, difference } from "./arm-result.js";
import type { Part } from "./load-study.js";
import { type MetricWords, metricWords } from "./tables.js";

const times = (factor: number) => `${factor < 10 ? factor.toFixed(1) : factor.toFixed(0)} times`;

/** What a part found, in a few sentences. */
export function findings(part: Part, results: readonly ArmResult[]): string {
  const words = metricWords(part);
  const sentences = [
    race(part, results, words),
    separation(part, results),
    cost(results),
    ...finish(part, results, words),
    ...misses(part, results, words),
  ];
  return sentences.filter((sentence) => sentence !== "").join(" ");
}

type Reached = ArmResult & { tokensToTarget: number };

/** The arms that reached the target, in order of tokens. */
function inOrder(results: readonly ArmResult[]): Reached[] {
  return results
    .filter((result): result is Reached => result.tokensToTarget !== null)
    .sort((a, b) => a.tokensToTarget - b.tokensToTarget);
}

/** Who reached the target, in order of tokens. */
function race({ seeds }: Part, results: readonly ArmResult[], { target }: MetricWords): string {
  const [first, ...others] = inOrder(results);
  const several = seeds.length > 1;
  const start = several ? `In the median over ${seeds.length} seeds, ` : "";
  if (first === undefined) return `${start}${several ? "no" : "No"} arm reached ${target}.`;
  const partly = ({ reached }: ArmResult) => (reached < seeds.length ? `${reached} of ${seeds.length} seeds` : "");
  const lead = `${start}${first.name} reached ${target} first, after ${formatCompact(first.tokensToTarget)} tokens${bracketed(partly(first))}`;
  if (others.length === 0) return results.length === 1 ? `${lead}.` : `${lead}; no other arm did.`;
  const rest = others.map((other) => {
    const tokens = other.tokensToTarget;
    return tokens === first.tokensToTarget
      ? `${other.name} ${several ? "after as many" : "at the same evaluation"}${bracketed(partly(other))}`
      : `${other.name} after ${formatCompact(tokens)}${bracketed(`${times(tokens / first.tokensToTarget)} as many`, partly(other))}`;
  });
  return `${lead}, then ${enumerate(rest)}.`;
}

function bracketed(...texts: readonly string[]): string {
  const filled = texts.filter((text) => text !== "");
  return filled.length === 0 ? "" : ` (${filled.join("; ")})`;
}

/** Whether the first arm was ahead of the others with every seed. */
function separation({ seeds }: Part, results: readonly ArmResult[]): string {
  const [first] = inOrder(results);
  if (first === undefined || seeds.length < 2 || results.length < 2) return "";
  const slowest = Math.max(...needed(first));
  const overlapping = results.filter((other) => other !== first && Math.min(...needed(other)) <= slowest);
  if (overlapping.length === 0) {
    return `The slowest seed of ${first.name} needed fewer tokens than any seed of ${results.length === 2 ? "the other arm" : "the other arms"}.`;
  }
  const names = enumerate(overlapping.map(({ name }) => name));
  return `The seeds of ${first.name} and ${names} overlap, so ${overlapping.length === 1 ? "this difference is" : "these differences are"} no more than a tendency.`;
}

/** Tokens to the target of every seed. */
function needed({ runs }: ArmResult): number[] {
  return runs.map(({ tokensToTarget }) => tokensToTarget ?? Number.POSITIVE_INFINITY);
}

/** Which arm paid least for the target in operations, if it isn't the one that needed the fewest tokens. */
function cost(results: readonly ArmResult[]): string {
  const paid = inOrder(results).map((result) => ({
    name: result.name,
    flops: result.tokensToTarget * result.flopsPerToken,
  }));
  const [fewest] = paid;
  const [cheapest] = [...paid].sort((a, b) => a.flops - b.flops);
  if (fewest === undefined || cheapest === undefined || cheapest.flops >= fewest.flops) return "";
  const [least, more] = [cheapest.flops, fewest.flops].map((flops) => formatCompact(flops));
  return `Counted in operations instead of tokens, ${cheapest.name} got there cheapest: ${least} FLOPs against ${more} of ${fewest.name}.`;
}

/** Who ended best, if all runs saw the same number of tokens, and by how much. */
function finish(part: Part, results: readonly ArmResult[], words: MetricWords): string[] {
  const lengths = new Set(results.flatMap(({ runs }) => runs.map(({ outcome }) => outcome.tokens)));
  if (results.length < 2 || lengths.size > 1) return [];
  const sign = part.metric === "accuracy" ? -1 : 1;
  const ranked = [...results].sort((a, b) => sign * (a.value - b.value));
  const [best, second] = ranked as [ArmResult, ArmResult, ...ArmResult[]];
  const last = ranked.at(-1)!;
  const show = (value: number) => showValue(part, value, words);
  const averaged = part.seeds.length > 1 ? ` (mean over ${part.seeds.length} seeds)` : "";
  return [
    `After the same ${formatCompact([...lengths][0]!)} tokens, ${best.name} ended best at ${show(best.value)}${averaged}, ` +
      `ahead of ${second.name} (${show(second.value)}) by ${lead(part, best, second, words)}.`,
    results.length > 2 ? `${last.name} ended last at ${show(last.value)}.` : "",
  ];
}

/** By how much one arm ended better than another, and whether chance might have done it. */
function lead(part: Part, best: ArmResult, second: ArmResult, words: MetricWords): string {
  const gap = Math.abs(best.value - second.value);
  const shown = showValue(part, gap, words);
  if (part.seeds.length > 1) {
    const { low, high } = difference(best, second);
    const [from, to] = [low, high].map(Math.abs).sort((a, b) => a - b) as [number, number];
    const interval = "95 % interval over the same seeds";
    return low > 0 || high < 0
      ? `${shown} (${interval}: ${showNumber(part, from)} to ${showValue(part, to, words)})`
      : `${shown}, but the ${interval} holds zero, so this is no more than a tendency`;
  }
  return gap > 2 * Math.hypot(best.standardError, second.standardError)
    ? `${shown}: more than two standard errors of the difference`
    : `${shown}: within two standard errors of the difference, so no more than a tendency`;
}

/** Who did not reach the target that others reached. */
function misses(part: Part, results: readonly ArmResult[], words: MetricWords): string[] {
  const missed = results.filter(({ tokensToTarget }) => tokensToTarget === null);
  const seeds = part.seeds.length;
  if (missed.length === results.length && missed.every(({ reached }) => reached === 0)) return [];
  return missed.map(({ name, runs, reached, value }) => {
    const tokens = formatCompact(Math.max(...runs.map(({ outcome }) => outcome.tokens)));
    const end = showValue(part, value, words);
    if (seeds === 1) return `${name} did not get there in ${tokens} tokens and ended at ${end}.`;
    return `${name} got there with ${reached === 0 ? "none" : reached} of its ${seeds} seeds in ${tokens} tokens and ended at ${end} (mean).`;
  });
}

function showValue(part: Part, value: number, { unit }: MetricWords): string {
  return `${showNumber(part, value)} ${part.metric === "accuracy" ? "%" : unit}`;
}

function showNumber({ metric }: Part, value: number): string {
  return metric === "accuracy" ? (100 * value).toFixed(1) : value.toFixed(3);
}

function enumerate(items: readonly string[]): string {
  return items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;
}

/** How the arms were compared. */
export function conditions(part: Part, results: readonly ArmResult[]): string {
  const sizes = results.map(({ parameters }) => parameters);
  const met = results.map(({ activeParameters }) => activeParameters);
  const spread = 100 * (Math.max(...met) / Math.min(...met) - 1);
  const mixed = results.some(({ parameters, activeParameters }) => activeParameters < parameters);
  const same =
    part.equalParameters === true
      ? `${mixed ? "A token meets" : "The arms have"} the same number of parameters${mixed ? " in every arm" : ""} within ${spread.toFixed(1)} %.`
      : `The arms have ${formatCompact(Math.min(...sizes))} to ${formatCompact(Math.max(...sizes))} parameters.`;
  const objectives = new Set(results.map(({ config: { data } }) => JSON.stringify(data)));
  const read =
    objectives.size > 1
      ? "All read the same documents, each under objectives of its own"
      : "All read the same batches in the same order";
  return (
    `${same} ${read}, and each uses the best of ${part.arms[0]!.learningRates.length} learning rates of its own, ` +
    `found by a sweep of equal size for every arm. ${repetition(part)}`
  );
}

function repetition({ seeds }: Part): string {
  if (seeds.length === 1) return "Each arm is one run with one seed.";
  return (
    `Each arm is run with ${seeds.length} seeds (${seeds.join(", ")}), the same for every arm; a seed decides initial weights and data. ` +
    "Tokens to the target are medians over the seeds, final values are means."
  );
}
