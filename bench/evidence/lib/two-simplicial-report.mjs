/** Tables and report of the study of 2-simplicial attention, from its results. */
import { formatCompact, formatDuration, renderTextTable, writeReport } from "@llmeff/report";
import { fitExponent } from "./exponent.mjs";
import { mean, meanInterval } from "./statistics.mjs";
import { majorityRate } from "./two-simplicial-data.mjs";
import { arms } from "./two-simplicial-settings.mjs";

const known = (runs) => runs.filter(({ value }) => typeof value === "number");

/** `3 of 3`, of all runs that are planned, with what became of those that came to nothing: `1 of 3 (1 diverged, 1 not run)`. */
function outOf(count, runs) {
  const lost = [
    [runs.filter(({ value }) => value === null).length, "diverged"],
    [runs.filter(({ value }) => value === undefined).length, "not run"],
  ].flatMap(([many, how]) => (many > 0 ? [`${many} ${how}`] : []));
  return `${count} of ${runs.length}${lost.length > 0 ? ` (${lost.join(", ")})` : ""}`;
}

/** `1.234 [1.111, 1.357]`; without the interval where there is none. */
function shown({ mean, low, high }, format) {
  return low === undefined ? format(mean) : `${format(mean)} [${format(low)}, ${format(high)}]`;
}
const digits = (count) => (value) => value.toFixed(count);
const percent = (value) => `${(100 * value).toFixed(1)} %`;
/** An end of an interval may lie where no share can. */
const share = (value) => percent(Math.min(1, Math.max(0, value)));

/** The mean of all runs; a dash where one diverged or wasn't run, since the mean of the others would flatter. */
function meanOf(runs, format) {
  return known(runs).length < runs.length ? "–" : shown(meanInterval(runs.map(({ value }) => value)), format);
}

/** Interval of the differences at matching seeds of two arms, `undefined` where one of the seeds doesn't have both or there is but one. */
function paired(one, other, read) {
  const values = one.runs.map((run, i) => read(run) - read(other.runs[i]));
  return values.length < 2 || !values.every(Number.isFinite) ? undefined : meanInterval(values);
}

/** Whether a result is known, be it that the run diverged. */
const isDone = ({ value }) => value !== undefined;
const isSearched = ({ tuned }) => tuned.every(isDone);

/** The chosen rate, with a star if not all rates were tried. */
function rateOf(result) {
  if (result.rate === undefined) return "–";
  return `${result.rate}${isSearched(result) ? "" : "*"}`;
}
/** Whether any run of a part is known. */
export const isTried = ({ arms: own }) => own.some(({ tuned }) => tuned.some(isDone));
const starred = "* Not all rates were tried.";

/** Tokens to the target: the geometric mean with its interval, where every run got there. */
function tokensOf(runs) {
  const tokens = runs.map(({ tokensToTarget }) => tokensToTarget);
  if (!tokens.every((count) => count > 0)) return "–";
  const { mean, low, high } = meanInterval(tokens.map(Math.log));
  return shown(
    { mean: Math.exp(mean), ...(low !== undefined && { low: Math.exp(low), high: Math.exp(high) }) },
    formatCompact,
  );
}

const logTokens = ({ tokensToTarget }) => (tokensToTarget > 0 ? Math.log(tokensToTarget) : Number.NaN);

/** How many times the tokens of the 2-simplicial arm another needs. */
function ratioTo(result, simplicial) {
  if (result.arm === "simplicial") return "1";
  const interval = paired(result, simplicial, logTokens);
  if (interval === undefined) return "–";
  return shown(Object.fromEntries(Object.entries(interval).map(([name, x]) => [name, Math.exp(x)])), digits(2));
}

function taskTable(results) {
  const rows = results.flatMap(({ part, arms: own }) =>
    own.map((result, i) => [
      i === 0 ? part.title : "",
      arms[result.arm].label,
      result.parameters,
      rateOf(result),
      outOf(result.runs.filter(({ tokensToTarget }) => tokensToTarget > 0).length, result.runs),
      tokensOf(result.runs),
      ratioTo(result, own[0]),
      meanOf(result.runs, share),
      i === 0 ? percent(majorityRate(part.data)) : "",
    ]),
  );
  const overlap = results.some(({ part }) => part.name === "match3")
    ? " Sequences of Match3 are short, so that training meets some held-out ones: of 14⁶ sequences 307,200 samples have 28 to 56 of the 1,000, by seed."
    : "";
  return {
    caption: "Tokens to 95 % accuracy",
    columns: [
      { header: "Task" },
      { header: "Attention" },
      { header: "Parameters", style: "integer" },
      { header: "Rate", align: "right" },
      { header: "Reached", align: "right" },
      { header: "Tokens", unit: "95 % interval", align: "right" },
      { header: "Ratio", unit: "to 2-simplicial", align: "right" },
      { header: "Last accuracy", unit: "95 % interval", align: "right" },
      { header: "Majority", align: "right" },
    ],
    rows,
    note: `On held-out sequences. Tokens: the geometric mean over the seeds, a dash where a seed did not get there within its steps, diverged or was not run. Ratio: over the same seeds. A run ends at its first evaluation with 95 %. Majority: the accuracy of always giving the commonest answer of the held-out ones. Intervals after Student. ${starred}${overlap}`,
  };
}

/** The loss of each size and arm, with the difference to dot-product attention of the same seeds. */
function textTable(results) {
  const rows = results.flatMap(({ part, arms: own }) => {
    const dot = own.find(({ arm }) => arm === "dot");
    return own.map((result, i) => {
      const difference = result === dot ? undefined : paired(result, dot, ({ value }) => Math.log(value));
      return [
        i === 0 ? part.title : "",
        arms[result.arm].label,
        result.parameters,
        rateOf(result),
        outOf(known(result.runs).length, result.runs),
        meanOf(result.runs, digits(4)),
        difference === undefined
          ? "–"
          : shown(
              Object.fromEntries(Object.entries(difference).map(([name, x]) => [name, 100 * Math.expm1(x)])),
              digits(2),
            ),
      ];
    });
  });
  return {
    caption: "Loss on a held-out novel",
    columns: [
      { header: "Model" },
      { header: "Attention" },
      { header: "Parameters", style: "integer" },
      { header: "Rate", align: "right" },
      { header: "Seeds", align: "right" },
      { header: "Loss", unit: "nats/byte, 95 % interval", align: "right" },
      { header: "Difference", unit: "%, 95 % interval", align: "right" },
    ],
    rows,
    note: `Difference: to dot-product attention, over the same seeds. A dash where a seed diverged or was not run. Intervals after Student. ${starred}`,
  };
}

/** A point for each run of an arm, or for that of one seed; none where a run diverged or wasn't made, or there are fewer than three sizes. */
function pointsOf(results, arm, seed) {
  const own = results.map(({ arms: own }) => own.find((one) => one.arm === arm));
  if (own.length < 3 || own.some(({ runs }) => known(runs).length < runs.length)) return [];
  return own.flatMap(({ parameters, runs }) =>
    (seed === undefined ? runs : [runs[seed]]).map(({ value }) => ({ parameters, loss: value })),
  );
}

/** Fits of both arms, and how much larger the 2-simplicial exponent is, seed by seed: where all runs of all sizes are known. */
export function exponents(results, seeds) {
  const names = ["simplicial", "dot"];
  const fitOf = (points) => (points.length === 0 ? undefined : fitExponent(points));
  const fits = Object.fromEntries(names.map((arm) => [arm, fitOf(pointsOf(results, arm))]));
  if (seeds.length < 2 || names.some((arm) => fits[arm] === undefined)) return { fits, difference: undefined };
  const differences = seeds.map((_, i) => {
    const [one, other] = names.map((arm) => fitOf(pointsOf(results, arm, i)).alpha);
    return one - other;
  });
  return { fits, difference: meanInterval(differences) };
}

function exponentTable({ fits, difference }) {
  const rows = Object.entries(fits).flatMap(([arm, fit]) =>
    fit === undefined ? [] : [[arms[arm].label, shown({ ...fit, mean: fit.alpha }, digits(4)), fit.beta, fit.r2]],
  );
  return {
    caption: "Exponents of −ln L = α ln N + β",
    columns: [
      { header: "Attention" },
      { header: "α", unit: "95 % interval", align: "right" },
      { header: "β", style: "fixed", digits: 4 },
      { header: "R²", style: "fixed", digits: 4 },
    ],
    rows,
    note: `Least squares over the runs of all sizes and seeds, N the number of parameters. α(2-simplicial) − α(dot-product), seed by seed: ${difference === undefined ? "not known" : shown(difference, digits(4))}. The paper (arXiv:2507.02754), from 1 to 3.5 billion active parameters: exponents 7 to 20 % higher with 2-simplicial attention.`,
  };
}

/** What is missing of the parts that were asked for: learning rates, and the seeds that judge. */
function missingTable(results, seeds) {
  const left = (all, runs) => all.filter((_, i) => !isDone(runs[i])).join(", ") || "–";
  const rows = results.flatMap(({ part, arms: own }) => {
    if (!isTried({ arms: own })) return [[part.title, "all", "all", "all"]];
    return own.flatMap(({ arm, tuned, runs }) =>
      [...tuned, ...runs].every(isDone)
        ? []
        : [[part.title, arms[arm].label, left(part.rates, tuned), left(seeds, runs)]],
    );
  });
  return {
    caption: "What was not run",
    columns: [{ header: "Part" }, { header: "Attention" }, { header: "Rates" }, { header: "Seeds" }],
    rows,
  };
}

/** Arms that might do better with a rate outside of those that were tried. */
function atBorder(results) {
  return results.flatMap(({ part, arms: own }) =>
    own.flatMap(({ arm, rate, tuned }) => {
      const tried = part.rates.filter((_, i) => isDone(tuned[i]));
      const border = [Math.min(...tried), Math.max(...tried)].includes(rate);
      return border ? [`${part.title} (${arms[arm].label})`] : [];
    }),
  );
}

function tuningTable(results) {
  const metricOf = (part, { value, tokensToTarget }) => {
    if (value === undefined) return "–";
    if (value === null) return "diverged";
    if (part.metric === "loss") return value.toFixed(4);
    return tokensToTarget === null ? percent(value) : `${percent(value)}, ${formatCompact(tokensToTarget)}`;
  };
  const border = atBorder(results);
  const most = Math.max(...results.map(({ part }) => part.rates.length));
  return {
    caption: "What each learning rate came to, with a seed of its own",
    columns: [
      { header: "Part" },
      { header: "Attention" },
      ...Array.from({ length: most }, (_, i) => ({ header: `Rate ${i + 1}` })),
      { header: "Chosen", align: "right" },
    ],
    rows: results.flatMap(({ part, arms: own }) =>
      own.map((result, i) => [
        i === 0 ? part.title : "",
        arms[result.arm].label,
        ...Array.from({ length: most }, (_, k) =>
          k < part.rates.length ? `${part.rates[k]}: ${metricOf(part, result.tuned[k])}` : "",
        ),
        rateOf(result),
      ]),
    ),
    note: `Accuracy with the tokens to 95 %, or the loss; on tasks after at most so many steps as the settings say. Chosen: the fewest tokens, else the highest accuracy or the lowest loss. ${starred}${border.length > 0 ? ` At the border of what was tried: ${border.join(", ")}.` : ""}`,
  };
}

/** Held-out accuracy over tokens, mean of the seeds that didn't diverge; a run that has ended counts on with its last value. */
function accuracyChart({ part, arms: own }) {
  const perStep = part.data.batchSize * part.seqLen;
  const series = own.flatMap(({ arm, runs }) => {
    const curves = known(runs).map(({ curve }) => curve);
    if (curves.length === 0) return [];
    const steps = [...new Set(curves.flatMap((curve) => curve.map(([step]) => step)))].sort((a, b) => a - b);
    const at = (curve, step) => (curve.findLast(([own]) => own <= step) ?? curve[0])[1];
    const y = steps.map((step) => mean(curves.map((curve) => at(curve, step))));
    const name = `${arms[arm].label}${curves.length < runs.length ? `, seeds: ${outOf(curves.length, runs)}` : ""}`;
    return [{ name, x: steps.map((step) => step * perStep), y }];
  });
  return {
    ...{ kind: "lineChart", title: part.title, series, x: { label: "tokens" } },
    y: { label: "accuracy", style: "percent" },
    references: [{ value: 0.95, label: "95 %" }],
  };
}

/** Mean loss of each size, and the fitted laws. */
export function exponentChart(results, { fits }) {
  const series = Object.entries(fits).flatMap(([arm, fit]) => {
    if (fit === undefined) return [];
    const points = results.map(({ arms: own }) => own.find((one) => one.arm === arm));
    const x = points.map(({ parameters }) => parameters);
    return [
      { name: arms[arm].label, x, y: points.map(({ runs }) => mean(runs.map(({ value }) => value))) },
      { name: `${arms[arm].label}, fit`, x, y: x.map((n) => Math.exp(-fit.alpha * Math.log(n) - fit.beta)) },
    ];
  });
  return {
    ...{ kind: "lineChart", title: "Loss by size", series },
    x: { label: "parameters", scale: "log" },
    y: { label: "nats/byte", scale: "log" },
  };
}

/** What all runs took, and on what. */
function costFacts(results) {
  const runs = results.flatMap(({ arms: own }) => own.flatMap(({ tuned, runs }) => [...tuned, ...runs]));
  const ended = runs.filter(({ seconds }) => seconds !== undefined);
  return [
    { name: "Runs", value: ended.length },
    { name: "Training, of all together", value: formatDuration(ended.reduce((sum, { seconds }) => sum + seconds, 0)) },
    { name: "Devices", value: [...new Set(ended.map(({ deviceName }) => deviceName))].join(", ") },
  ];
}

/**
 * Prints the tables and writes the report.
 *
 * @param results - `{ part, arms: [{ arm, parameters, rate, tuned, runs }] }` of each part that was asked for
 * @param options.machines - those that the results come from
 */
export async function tell(path, results, { seeds, settings, machines, width }) {
  // A part whose rates alone are known has its place among the rates.
  const tried = results.filter(isTried);
  const judged = results.filter(({ arms: own }) => own.some(({ runs }) => known(runs).length > 0));
  const tasks = judged.filter(({ part }) => part.metric === "accuracy");
  const text = judged.filter(({ part }) => part.metric === "loss");
  const fitted = exponents(text, seeds);
  const isFitted = Object.values(fitted.fits).some((fit) => fit !== undefined);
  const taskTables = tasks.length > 0 ? [taskTable(tasks)] : [];
  const textTables = text.length > 0 ? [textTable(text), ...(isFitted ? [exponentTable(fitted)] : [])] : [];
  const missing = missingTable(results, seeds);
  const searchTables = [tuningTable(tried), ...(missing.rows.length > 0 ? [missing] : [])];
  for (const table of [...taskTables, ...textTables, ...searchTables]) console.log(renderTextTable(table, { width }));
  const blocks = (of) => of.map((table) => ({ kind: "table", ...table }));
  const section = (title, own) => (own.length > 0 ? [{ title, blocks: own }] : []);
  await writeReport(path, {
    title: "2-simplicial against dot-product attention",
    subtitle: `equal parameters, equal tokens, ${
      tried.every(({ arms: own }) => own.every(isSearched))
        ? "learning rates tuned alike"
        : "not all learning rates tried"
    }`,
    sections: [
      ...section("Generated tasks", [...blocks(taskTables), ...tasks.map(accuracyChart)]),
      ...section("Text", [...blocks(textTables), ...(isFitted ? [exponentChart(text, fitted)] : [])]),
      {
        title: "Arms and learning rates",
        blocks: [
          {
            kind: "prose",
            text: Object.values(arms)
              .map(({ label, what }) => `${label}: ${what}.`)
              .join("\n\n"),
          },
          ...blocks(searchTables),
        ],
      },
      {
        title: "Settings and machine",
        blocks: [
          { kind: "json", title: "Parts", value: settings },
          { kind: "facts", facts: costFacts(results) },
          { kind: "json", title: "Machines", value: machines },
        ],
      },
    ],
  });
  console.log(`open ${path}`);
}
