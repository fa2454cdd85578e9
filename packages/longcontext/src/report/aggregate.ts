/** Results summed up: by model and task, over length, depth and complexity. */
import { promptTokensOf, type ResultRecord, recordId, STATUSES, type Status } from "../runner/result.js";
import { type CurvePoint, cumulativeCurve, type ScoredLength } from "../stats/cumulative.js";
import { type HeatMap, heatMap } from "../stats/heat-map.js";
import { type MeanInterval, meanInterval } from "../stats/intervals.js";
import { clusterMeans, type LengthBin, lengthBins } from "../stats/length-bins.js";
import { areaUnderCurve, type Degradation, degradation, effectiveLength } from "../stats/length-summary.js";
import { aboveFloor } from "../stats/noise-floors.js";
import { type PairedComparison, pairedComparison } from "../stats/paired-comparison.js";
import { spearman } from "../stats/spearman.js";
import { type MrcrResult, mrcrResult } from "./mrcr-result.js";

export interface AggregateOptions {
  /** Errors and prompts that are too long: left out of means (default) or counted as 0. */
  errors?: "exclude" | "zero";
  /** Models in the order in which they are to be told; default that of the results. */
  models?: readonly string[];
  /** Score that an effective length must hold; default 0.856, RULER's. */
  threshold?: number;
}

/** Score at a tested length. */
export interface AtLength extends MeanInterval {
  /** Prompt and answer together, as asked for. */
  length: number;
}

/** One model on one task. */
export interface TaskResult {
  model: string;
  /** Variant of the task where it has some, such as `niah_mk2`. */
  task: string;
  samples: number;
  statuses: Record<Status, number>;
  mean: MeanInterval;
  /** Means of the task's other figures. */
  metrics: Record<string, number>;
  /** Mean floor; null where the task has none. */
  floor: number | null;
  /** `(mean − floor) / (1 − floor)`. */
  aboveFloor: number | null;
  byLength: AtLength[];
  /** By the tokens that the endpoint counted. */
  bins: LengthBin[];
  curve: CurvePoint[];
  effectiveLength: number | null;
  area: number | null;
  degradation: Degradation | null;
  byComplexity: (MeanInterval & { complexity: number })[];
  /** Of samples with one relevant item. */
  heatMap: HeatMap | null;
  /** As the published sets report; null for other tasks. */
  mrcr: MrcrResult | null;
}

export interface ModelComparison extends PairedComparison {
  task: string;
  a: string;
  b: string;
}

export interface Aggregate {
  models: string[];
  tasks: string[];
  results: TaskResult[];
  comparisons: ModelComparison[];
  /** Spearman's rank correlation between tasks over the models; null for less than three models. */
  correlations: { tasks: [string, string]; rho: number | null }[];
  statuses: Record<Status, number>;
  /** More than 1 % of the requests ended in errors. */
  incomplete: boolean;
  /** Prompt tokens as each endpoint counted, divided by the generator's count; null where it told none. */
  tokenRatios: Record<string, number | null>;
}

const DEPTH_CENTRES = Array.from({ length: 11 }, (_, i) => 10 * i);
const INCOMPLETE_SHARE = 0.01;

export function taskLabel({ variant, task }: Pick<ResultRecord, "variant" | "task">): string {
  return variant ?? task;
}

/** The last record of each sample, model and trial: what was asked again replaces what failed. */
export function latestRecords(records: Iterable<ResultRecord>): ResultRecord[] {
  const latest = new Map<string, ResultRecord>();
  for (const record of records) latest.set(recordId(record), record);
  return [...latest.values()];
}

/** @param records - as they stand in a results file */
export function aggregate(records: Iterable<ResultRecord>, options: AggregateOptions = {}): Aggregate {
  const latest = latestRecords(records);
  const found = new Set(latest.map(({ model }) => model));
  const models = [...new Set([...(options.models ?? []), ...found])].filter((model) => found.has(model));
  const tasks = [...new Set(latest.map(taskLabel))];
  const results = tasks.flatMap((task) =>
    models.flatMap((model) => {
      const own = latest.filter((record) => record.model === model && taskLabel(record) === task);
      return own.length === 0 ? [] : [taskResult(model, task, own, options)];
    }),
  );
  const statuses = countStatuses(latest);
  return {
    models,
    tasks,
    results,
    comparisons: tasks.flatMap((task) => compareModels(task, models, latest, options)),
    correlations: correlations(tasks, models, results),
    statuses,
    incomplete: statuses.error > INCOMPLETE_SHARE * latest.length,
    tokenRatios: Object.fromEntries(models.map((model) => [model, tokenRatio(model, latest)])),
  };
}

function tokenRatio(model: string, records: readonly ResultRecord[]): number | null {
  const told = records.filter(
    (record) => record.model === model && record.usage !== undefined && !record.usageEstimated,
  );
  const planned = told.reduce((sum, { budgetTokens }) => sum + budgetTokens, 0);
  const counted = told.reduce((sum, { usage }) => sum + usage!.promptTokens, 0);
  return planned > 0 ? counted / planned : null;
}

/** A record's score as it counts, or another of its figures; null where it doesn't count. */
export function countedScore(
  { status, score, metrics }: ResultRecord,
  { errors = "exclude" }: AggregateOptions,
  metric?: string,
): number | null {
  if (status === "error" || status === "context_exceeded") return errors === "zero" ? 0 : null;
  if (status === "refused") return 0;
  return (metric === undefined ? score : metrics?.[metric]) ?? null;
}

/** Counted scores with their lengths; trials of a sample are one observation. */
function scoredLengths(records: readonly ResultRecord[], options: AggregateOptions, metric?: string) {
  const repeated = records.some(({ trial }) => trial > 0);
  return records.flatMap((record) => {
    const score = countedScore(record, options, metric);
    const cluster = record.cluster ?? (repeated ? record.id : undefined);
    return score === null
      ? []
      : [{ record, score, tokens: promptTokensOf(record), ...(cluster === undefined ? {} : { cluster }) }];
  });
}

function taskResult(model: string, task: string, records: ResultRecord[], options: AggregateOptions): TaskResult {
  const { threshold = 0.856 } = options;
  const scored = scoredLengths(records, options);
  const placed: ScoredLength[] = scored.filter(hasLength);
  const byLength = grouped(scored, ({ record }) => record.maxTokens).map(([length, members]) => ({
    length,
    ...meanInterval(clusterMeans(members)),
  }));
  const points = byLength.map(({ length, mean }) => ({ length, score: mean! }));
  const mean = meanInterval(clusterMeans(scored));
  const floors = scored.flatMap(({ record }) => record.floor ?? []);
  const floor = floors.length === 0 ? null : average(floors);
  return {
    model,
    task,
    samples: records.length,
    statuses: countStatuses(records),
    mean,
    metrics: meanMetrics(scored.map(({ record }) => record)),
    floor,
    aboveFloor: floor === null || mean.mean === null || floor >= 1 ? null : aboveFloor(mean.mean, floor),
    byLength,
    bins: lengthBins(placed),
    curve: cumulativeCurve(placed),
    effectiveLength: effectiveLength(points, threshold),
    area: points.length < 2 ? null : areaUnderCurve(points),
    degradation: points.length === 0 ? null : degradation(points),
    byComplexity: grouped(scored, ({ record }) => record.complexity).map(([complexity, members]) => ({
      complexity,
      ...meanInterval(clusterMeans(members)),
    })),
    heatMap: depthMap(records, options),
    mrcr: mrcrResult(records, (metric) => scoredLengths(records, options, metric).filter(hasLength)),
  };
}

/** An endpoint that counts a prompt as no tokens says nothing of its length. */
function hasLength({ tokens }: ScoredLength): boolean {
  return tokens > 0;
}

/** Groups by a number, ascending. */
function grouped<T>(items: readonly T[], keyOf: (item: T) => number): [number, T[]][] {
  const groups = new Map<number, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return [...groups].sort(([a], [b]) => a - b);
}

function depthMap(records: readonly ResultRecord[], options: AggregateOptions): HeatMap | null {
  const single = records.filter(({ depths }) => depths?.length === 1);
  if (single.length === 0) return null;
  // A short context has few places for a needle, and cells by the place alone would stay empty beside others that hold the needles of two.
  const entries = single.map((record) => ({
    length: record.maxTokens,
    depth: record.askedDepth ?? record.depths![0]!,
    score: countedScore(record, options),
  }));
  return heatMap(entries, { depths: DEPTH_CENTRES });
}

function compareModels(
  task: string,
  models: readonly string[],
  records: readonly ResultRecord[],
  options: AggregateOptions,
): ModelComparison[] {
  const scores = new Map<string, Map<string, { score: number; cluster: string }>>(
    models.map((model) => [model, new Map()]),
  );
  for (const record of records) {
    const score = countedScore(record, options);
    if (taskLabel(record) !== task || score === null) continue;
    const cluster = record.cluster ?? record.id;
    scores.get(record.model)!.set(`${record.id}\n${record.trial}`, { score, cluster });
  }
  return models.flatMap((a, i) =>
    models.slice(i + 1).flatMap((b) => {
      const pairs = [...scores.get(a)!].flatMap(([key, ours]) => {
        const theirs = scores.get(b)!.get(key);
        return theirs === undefined ? [] : [{ a: ours.score, b: theirs.score, cluster: ours.cluster }];
      });
      if (pairs.length === 0) return [];
      const clusters = pairs.map(({ cluster }) => cluster);
      const compared = pairedComparison(
        pairs.map((pair) => pair.a),
        pairs.map((pair) => pair.b),
        { clusters },
      );
      return [{ task, a, b, ...compared }];
    }),
  );
}

function correlations(tasks: readonly string[], models: readonly string[], results: readonly TaskResult[]) {
  if (models.length < 3) return [];
  const meanOf = (model: string, task: string) =>
    results.find((result) => result.model === model && result.task === task)?.mean.mean ?? null;
  return tasks.flatMap((x, i) =>
    tasks.slice(i + 1).map((y) => {
      const pairs = models.flatMap((model) => {
        const [a, b] = [meanOf(model, x), meanOf(model, y)];
        return a === null || b === null ? [] : [{ a, b }];
      });
      const rho = spearman(
        pairs.map(({ a }) => a),
        pairs.map(({ b }) => b),
      );
      return { tasks: [x, y] as [string, string], rho: pairs.length < 3 ? null : rho };
    }),
  );
}

function meanMetrics(records: readonly ResultRecord[]): Record<string, number> {
  const names = [...new Set(records.flatMap(({ metrics }) => Object.keys(metrics ?? {})))];
  return Object.fromEntries(
    names.map((name) => [name, average(records.flatMap(({ metrics }) => metrics?.[name] ?? []))]),
  );
}

function countStatuses(records: readonly ResultRecord[]): Record<Status, number> {
  const counts = Object.fromEntries(STATUSES.map((status) => [status, 0])) as Record<Status, number>;
  for (const { status } of records) counts[status]++;
  return counts;
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
