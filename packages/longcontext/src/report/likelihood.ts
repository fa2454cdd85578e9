/** Negative log-likelihood against position in a report: curves with their power laws, bins, and the fits. */
import type { Block, Cell, Fact, LineChart, Report, Section, Series, TableBlock } from "@llmeff/report";
import type { NllBin, NllPoint } from "../stats/nll-curve.js";
import type { PowerLawFit } from "../stats/power-law.js";
import { tokensLabel } from "./tokens-label.js";

export interface NllResult {
  model: string;
  points: readonly NllPoint[];
  /** Means within powers of two; without them the report has no such chart. */
  bins?: readonly NllBin[];
  fit: PowerLawFit | null;
}

export interface NllReportInput {
  results: readonly NllResult[];
  /** What was read, and how. */
  facts?: readonly Fact[];
  title?: string;
  date?: string;
  footer?: string;
}

/** The likelihood of documents by itself, for `renderReport` of `@llmeff/report`. */
export function nllReport({
  results,
  facts = [],
  title = "Likelihood against position",
  ...rest
}: NllReportInput): Report {
  const names = results.map(({ model }) => model).join(", ");
  return {
    title,
    subtitle: names,
    ...rest,
    sections: [
      ...likelihoodSection(results),
      {
        title: "How it was measured",
        blocks: [
          ...(facts.length === 0 ? [] : [{ kind: "facts", facts } as const]),
          { kind: "download", label: "Save the numbers as JSON", fileName: "likelihood.json", value: { results } },
        ],
      },
    ],
  };
}

export function likelihoodSection(results: readonly NllResult[]): Section[] {
  if (results.length === 0) return [];
  return [{ title: "Likelihood", blocks: [curves(results), ...binChart(results), fits(results), pointTable(results)] }];
}

const known = (points: readonly NllPoint[]) => points.filter((point) => point.mean !== null);

function curves(results: readonly NllResult[]): LineChart {
  return {
    kind: "lineChart",
    title: "Negative log-likelihood against position",
    caption:
      "Mean over all positions up to x, and the power law fitted to it. A falling curve doesn't promise that the model reasons over what it read.",
    x: { label: "position", scale: "log2" },
    y: { label: "nats/token", scale: "log" },
    series: results.flatMap(({ model, points, fit }) => {
      const own = known(points);
      const measured: Series = { name: model, x: own.map(({ position }) => position), y: own.map(({ mean }) => mean!) };
      return fit === null ? [measured] : [measured, fitted(model, own, fit)];
    }),
  };
}

/** The law between the first and the last point, at quarters of a doubling. */
function fitted(model: string, points: readonly NllPoint[], { alpha, beta, gamma }: PowerLawFit): Series {
  const [first, last] = [points[0]!.position, points.at(-1)!.position];
  const steps = Math.max(1, Math.ceil(4 * Math.log2(last / first)));
  const x = Array.from({ length: steps + 1 }, (_, i) => first * (last / first) ** (i / steps));
  return { name: `${model}, α·xᵝ + γ`, x, y: x.map((position) => alpha * position ** beta + gamma) };
}

function binChart(results: readonly NllResult[]): Block[] {
  const binned = results.filter(({ bins }) => bins !== undefined && bins.length > 0);
  if (binned.length === 0) return [];
  return [
    {
      kind: "lineChart",
      title: "Within powers of two",
      caption:
        "Mean over the positions from x/2 to x alone, all documents together: what the context before them is worth.",
      x: { label: "position", scale: "log2" },
      y: { label: "nats/token" },
      series: binned.map(({ model, bins }) => ({
        name: model,
        x: bins!.map(({ positions }) => positions[1]),
        y: bins!.map(({ mean }) => mean),
      })),
    },
  ];
}

function fits(results: readonly NllResult[]): TableBlock {
  return {
    kind: "table",
    caption: "Fit of α·xᵝ + γ",
    columns: [
      { header: "Model" },
      { header: "α" },
      { header: "β" },
      { header: "γ", unit: "nats/token" },
      { header: "R²", align: "right" },
      { header: "Deviates from", align: "right" },
      { header: "Degenerate" },
    ],
    rows: results.map(({ model, fit }): Cell[] =>
      fit === null
        ? [model, null, null, null, null, null, null]
        : [
            model,
            fit.alpha,
            fit.beta,
            fit.gamma,
            fit.r2?.toFixed(4) ?? null,
            fit.deviatesAt === null ? null : tokensLabel(fit.deviatesAt),
            fit.degenerate ? "yes" : "no",
          ],
    ),
    note: "Needs four points or more. Deviates from: the first position whose residual is an outlier. Degenerate: the exponent lies at the bound of its search, or α isn't positive; then the law says nothing.",
  };
}

function pointTable(results: readonly NllResult[]): TableBlock {
  const positions = [...new Set(results.flatMap(({ points }) => known(points).map(({ position }) => position)))];
  positions.sort((a, b) => a - b);
  const at = (result: NllResult, position: number) => result.points.find((point) => point.position === position);
  return {
    kind: "table",
    caption: "Mean up to a position",
    columns: [
      { header: "Position", align: "right" },
      ...results.flatMap(({ model }) => [
        { header: model, unit: "nats/token", style: "fixed", digits: 4 } as const,
        { header: "Documents", style: "integer" } as const,
      ]),
    ],
    rows: positions.map((position) => [
      tokensLabel(position),
      ...results.flatMap((result): Cell[] => {
        const point = at(result, position);
        return [point?.mean ?? null, point?.documents ?? null];
      }),
    ]),
    note: "Over the documents that are so long.",
  };
}
