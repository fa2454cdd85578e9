/**
 * Does a large model learn faster if a small one teaches it first? SALT (arXiv:2410.18779) on text: plain training (BASELINE), distillation throughout (RKD), SALT,
 * and SALT with selected sequences (SALT_DS), at equal steps, equal operations and equal seconds, each at as many learning rates and then over several seeds.
 *
 *   npm start -- info                                (once: builds the packages)
 *   node examples/salt.mjs                           on a CPU, tiny-shakespeare
 *   node examples/salt.mjs --size gpu --corpus books-train.jsonl.gz
 *
 * Options: --size cpu|gpu|smoke, --corpus FILE (.txt, .jsonl or .parquet; text files also as .gz), --out FOLDER (default runs/salt-SIZE), --seeds 1,2,3.
 * Every run is a line of FOLDER/results.jsonl with its settings and curve; a second call makes only those that are missing. FOLDER/report.html shows all.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  byteTokenizer,
  encodeCorpus,
  inStages,
  SelectedWindows,
  selectTop,
  sequentialWindows,
  splitTokens,
  streamJsonl,
  streamParquet,
  streamText,
  TokenDataset,
  windowsAt,
} from "@llmeff/data";
import { describeCost, distill, saltCost, scoreSequences, tokenModel } from "@llmeff/distill";
import { Transformer } from "@llmeff/models";
import { AdamW, cosine } from "@llmeff/optim";
import { machineFacts, renderTextTable, writeReport } from "@llmeff/report";
import { defaultDevice } from "@llmeff/tensor";
import { evaluateLoss, train } from "@llmeff/train";

/** The share of the run after which the paper's SALT had reached its baseline; the early point of the tables. */
const EARLY = 0.7;
const shape = (dModel, numLayers, numHeads) => ({ dModel, numLayers, numHeads, qkNorm: true });
const sizes = {
  smoke: {
    seqLen: 16,
    batchSize: 4,
    steps: 12,
    teacherSteps: 12,
    earlyTeacherStep: 4,
    distilledSteps: 4,
    pool: 64,
    evaluateEvery: 4,
    evaluateWindows: 8,
    rates: [4e-3],
    warmupSteps: 2,
    dtype: "float32",
    maxTokens: 20_000,
    teacher: shape(8, 1, 1),
    student: shape(16, 1, 2),
  },
  cpu: {
    seqLen: 64,
    batchSize: 16,
    steps: 600,
    teacherSteps: 600,
    earlyTeacherStep: 100,
    distilledSteps: 104,
    pool: 8192,
    evaluateEvery: 25,
    evaluateWindows: 200,
    rates: [2e-3, 4e-3, 8e-3],
    warmupSteps: 40,
    dtype: "float32",
    maxTokens: 2 ** 21,
    teacher: shape(48, 2, 2),
    student: shape(96, 4, 4),
  },
  gpu: {
    seqLen: 512,
    batchSize: 64,
    steps: 8000,
    teacherSteps: 8000,
    earlyTeacherStep: 1000,
    distilledSteps: 1384,
    pool: 2 ** 18,
    evaluateEvery: 200,
    evaluateWindows: 512,
    rates: [5e-4, 1e-3, 2e-3],
    warmupSteps: 200,
    dtype: "bfloat16",
    maxTokens: 2 ** 31,
    teacher: shape(256, 6, 4),
    student: shape(512, 12, 8),
  },
};
const arms = {
  BASELINE: "plain training",
  RKD: "the teacher throughout",
  SALT: "the teacher in the first steps, then plain training",
  SALT_DS: "as SALT, its first steps on sequences that an early teacher finds hard yet learnable",
};
const tuningSeed = 101;
/** Two-sided 95 % of Student's t for 1, 2, … degrees of freedom. */
const student95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

const { values: given } = parseArgs({
  options: {
    size: { type: "string", default: "cpu" },
    corpus: { type: "string", default: fileURLToPath(new URL("../datasets/tiny-shakespeare.txt.gz", import.meta.url)) },
    out: { type: "string" },
    seeds: { type: "string", default: "1,2,3" },
  },
});
const size = sizes[given.size];
if (size === undefined)
  throw new Error(`--size must be one of ${Object.keys(sizes).join(", ")}; received ${given.size}.`);
const folder = given.out ?? join("runs", `salt-${given.size}`);
const seeds = given.seeds.split(",").map(Number);
mkdirSync(folder, { recursive: true });

/** Bytes as tokens: one vocabulary for any text. */
async function readCorpus(path) {
  const pieces = path.includes(".jsonl")
    ? streamJsonl(path)
    : path.endsWith(".parquet")
      ? streamParquet(path)
      : streamText(path);
  const ids = await encodeCorpus(byteTokenizer(), pieces, path.includes(".txt") ? {} : { separator: 0 });
  return splitTokens(Uint8Array.from(ids.subarray(0, size.maxTokens)), 0.1);
}

const text = await readCorpus(given.corpus);
const { seqLen, batchSize } = size;
const validation = sequentialWindows(text.valid, { seqLen, batchSize, maxWindows: size.evaluateWindows });
const modelOf = (config) => new Transformer({ ...config, vocabSize: 256, maxSeqLen: seqLen });
const [teacherModel, studentModel] = [modelOf(size.teacher), modelOf(size.student)];
const streamOf = (seed) => new TokenDataset(text.train, { seqLen, batchSize, seed });
const initial = (model, seed) => model.init(seed, { device: defaultDevice(), dtype: size.dtype });
function freed(params) {
  for (const one of Object.values(params)) one.dispose();
}
const copied = (params) => Object.fromEntries(Object.entries(params).map(([name, one]) => [name, one.mul(1)]));

/** Trains and evaluates. @returns `{ steps, seconds, losses }` of the evaluations; `seconds` without these */
async function curveOf(model, options, { steps, rate, onStep = () => {} }) {
  const { params } = options;
  const optimizer = new AdamW(params, {
    learningRate: cosine(rate, steps, { warmupSteps: size.warmupSteps, minRatio: 0.1 }),
    maxGradNorm: 1,
  });
  const perToken = (p, batch) => model.lossParts(p, batch).perToken;
  const evaluate = () => evaluateLoss(perToken, params, validation).then(({ loss }) => ({ loss }));
  const curve = { steps: [], seconds: [], losses: [] };
  let seconds = 0;
  for await (const event of train({ ...options, optimizer, steps, evaluate, evaluateEvery: size.evaluateEvery })) {
    if (event.type === "step") seconds = event.seconds;
    if (event.type === "step") await onStep(event.step);
    if (event.type !== "evaluation") continue;
    curve.steps.push(event.step);
    curve.seconds.push(seconds);
    curve.losses.push(event.metrics.loss);
  }
  optimizer.dispose();
  return curve;
}

/** One teacher for all runs, and its early state, which selects. */
async function trainedTeacher() {
  const params = initial(teacherModel, 7);
  let early;
  const options = { params, objective: teacherModel.loss.bind(teacherModel), data: streamOf(7) };
  const onStep = (step) => {
    if (step === size.earlyTeacherStep) early = copied(params);
  };
  const curve = await curveOf(teacherModel, options, { steps: size.teacherSteps, rate: size.rates.at(-1), onStep });
  return { model: tokenModel(teacherModel), params, early, loss: curve.losses.at(-1) };
}

/** The hardest learnable windows of a pool, as many as the first stage takes. */
async function selectedStarts(teacher) {
  const starts = new TokenDataset(text.train, { seqLen, batchSize, seed: 5 }).windowStarts(0).subarray(0, size.pool);
  const scorer = { model: teacher.model, params: teacher.early };
  const scores = await scoreSequences(scorer, windowsAt(text.train, starts, { seqLen, batchSize }));
  return selectTop(scores, size.distilledSteps * batchSize).map((i) => starts[i]);
}

const ledger = join(folder, "results.jsonl");
const records = existsSync(ledger)
  ? readFileSync(ledger, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
  : [];

/** A run of an arm: from the ledger if it has one with these settings. */
async function runOf(arm, rate, seed, teacher) {
  const settings = { arm, rate, seed, size, corpus: given.corpus, tokens: text.train.length, device: defaultDevice() };
  const key = JSON.stringify(settings);
  const found = records.find((record) => JSON.stringify(record.settings) === key);
  if (found) return found;
  const params = initial(studentModel, seed);
  const stream = streamOf(seed);
  const data =
    arm === "SALT_DS"
      ? inStages([
          {
            source: new SelectedWindows(text.train, teacher.starts, { seqLen, batchSize, seed }),
            batches: size.distilledSteps,
          },
          { source: stream },
        ])
      : stream;
  const schedule = arm === "RKD" ? { kind: "always" } : { kind: "step", steps: size.distilledSteps };
  const objective =
    arm === "BASELINE"
      ? studentModel.loss.bind(studentModel)
      : distill({ student: tokenModel(studentModel), teacher, schedule });
  const curve = await curveOf(studentModel, { params, objective, data, seed }, { steps: size.steps, rate });
  objective.dispose?.();
  freed(params);
  const record = { settings, curve };
  records.push(record);
  appendFileSync(ledger, `${JSON.stringify(record)}\n`);
  console.log(
    `${arm}, rate ${rate}, seed ${seed}: loss ${curve.losses.at(-1).toFixed(4)} in ${curve.seconds.at(-1).toFixed(1)} s`,
  );
  return record;
}

/** The value of `ys` at `x`, linear between the points; the end's beyond it. */
function valueAt(xs, ys, x) {
  const after = xs.findIndex((own) => own >= x);
  if (after < 0) return ys.at(-1);
  if (after === 0) return ys[0];
  const part = (x - xs[after - 1]) / (xs[after] - xs[after - 1]);
  return ys[after - 1] + part * (ys[after] - ys[after - 1]);
}

/** Where the losses first reach a target, on the axis `xs`; undefined if they don't. */
function reachedAt(xs, losses, target) {
  const at = losses.findIndex((loss) => loss <= target);
  if (at <= 0) return at < 0 ? undefined : xs[0];
  const part = (losses[at - 1] - target) / (losses[at - 1] - losses[at]);
  return xs[at - 1] + part * (xs[at] - xs[at - 1]);
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const spread = (values) => Math.sqrt(values.reduce((sum, x) => sum + (x - mean(values)) ** 2, 0) / (values.length - 1));
/** For a table: the mean with its standard error; a dash where a seed has no value. */
function estimate(values) {
  if (values.some((value) => value === undefined)) return null;
  return values.length < 2
    ? mean(values)
    : { value: mean(values), standardError: spread(values) / Math.sqrt(values.length) };
}
/** The mean with its 95 % interval, as text. */
function interval(values, digits = 1) {
  if (values.some((value) => value === undefined)) return "not in every seed";
  if (values.length < 2) return mean(values).toFixed(digits);
  const half = ((student95[values.length - 2] ?? 1.96) * spread(values)) / Math.sqrt(values.length);
  return `${mean(values).toFixed(digits)} (${(mean(values) - half).toFixed(digits)} … ${(mean(values) + half).toFixed(digits)})`;
}

const teacher = await trainedTeacher();
teacher.starts = await selectedStarts(teacher);
console.log(
  `teacher: ${teacherModel.parameterCount} parameters, loss ${teacher.loss.toFixed(4)}; student: ${studentModel.parameterCount}`,
);

const results = {};
for (const arm of Object.keys(arms)) {
  const tuned = [];
  for (const rate of size.rates)
    tuned.push({ rate, loss: (await runOf(arm, rate, tuningSeed, teacher)).curve.losses.at(-1) });
  const [{ rate }] = tuned.toSorted((a, b) => a.loss - b.loss);
  const runs = [];
  for (const seed of seeds) runs.push((await runOf(arm, rate, seed, teacher)).curve);
  results[arm] = { rate, tuned, runs };
}

const distilledSteps = { BASELINE: 0, RKD: size.steps, SALT: size.distilledSteps, SALT_DS: size.distilledSteps };
const runCost = (arm, steps) =>
  saltCost({
    studentParameters: studentModel.parameterCount,
    teacherParameters: teacherModel.parameterCount,
    baselineSteps: size.steps,
    steps,
    teacherSteps: distilledSteps[arm],
  });

/** What an arm's runs say, against the baseline of the same seed. */
function rowOf(arm) {
  const { rate, runs } = results[arm];
  const baseline = results.BASELINE.runs;
  const operations = (curve) => curve.steps.map((step) => runCost(arm, step).relative);
  const reached = runs.map((curve, i) => reachedAt(curve.steps, curve.losses, baseline[i].losses.at(-1)));
  const reachedSeconds = runs.map((curve, i) => reachedAt(curve.seconds, curve.losses, baseline[i].losses.at(-1)));
  return {
    row: [
      arm,
      rate,
      estimate(runs.map((curve) => curve.losses.at(-1))),
      estimate(runs.map((curve) => valueAt(curve.steps, curve.losses, EARLY * size.steps))),
      estimate(runs.map((curve) => valueAt(operations(curve), curve.losses, 1))),
      estimate(runs.map((curve, i) => valueAt(curve.seconds, curve.losses, baseline[i].seconds.at(-1)))),
    ],
    steps: interval(reached.map((step) => step && (100 * step) / size.steps)),
    seconds: interval(reachedSeconds.map((time, i) => time && (100 * time) / baseline[i].seconds.at(-1))),
    cost: reached.includes(undefined)
      ? "–"
      : describeCost(
          {
            ...{ studentParameters: studentModel.parameterCount, teacherParameters: teacherModel.parameterCount },
            baselineSteps: size.steps,
            steps: mean(reached),
            teacherSteps: distilledSteps[arm],
          },
          { run: mean(reachedSeconds), baseline: mean(baseline.map(({ seconds }) => seconds.at(-1))) },
        ),
  };
}

const rows = Object.fromEntries(Object.keys(arms).map((arm) => [arm, rowOf(arm)]));
const losses = {
  columns: [
    { header: "Arm" },
    { header: "Rate", style: "auto" },
    { header: "All steps", unit: "nats/byte", best: "min" },
    { header: `${100 * EARLY} % of the steps`, unit: "nats/byte", best: "min" },
    { header: "Equal operations", unit: "nats/byte", best: "min" },
    { header: "Equal seconds", unit: "nats/byte", best: "min" },
  ],
  rows: Object.values(rows).map(({ row }) => row),
  note: `Validation loss, mean and standard error over ${seeds.length} seeds, each arm at the best of ${size.rates.length} rates of another seed. An arm that takes longer is read where the baseline ends.`,
};
const reaching = {
  columns: [{ header: "Arm" }, { header: "Steps, %" }, { header: "Seconds, %" }, { header: "Cost" }],
  rows: Object.entries(rows).map(([arm, { steps, seconds, cost }]) => [arm, steps, seconds, cost]),
  note: "Where the arm first reaches the final loss of the baseline of the same seed, of the baseline's whole run, with 95 % intervals. The paper: at most 70 % of the steps, 25 to 29 % fewer seconds.",
};
for (const table of [losses, reaching]) console.log(renderTextTable(table, { width: process.stdout.columns ?? 140 }));

const averaged = (runs) => runs[0].steps.map((_, i) => mean(runs.map((curve) => curve.losses[i])));
await writeReport(join(folder, "report.html"), {
  title: "Does a small teacher help at first?",
  sections: [
    {
      title: "Result",
      blocks: [
        { kind: "table", caption: "Loss", ...losses },
        { kind: "table", caption: "Reaching the baseline", ...reaching },
        {
          kind: "lineChart",
          title: "Validation loss",
          x: { label: "step" },
          y: { label: "nats/byte", scale: "log" },
          series: Object.entries(results).map(([name, { runs }]) => ({ name, x: runs[0].steps, y: averaged(runs) })),
          references: [{ value: teacher.loss, label: "teacher" }],
        },
        {
          kind: "prose",
          text: Object.entries(arms)
            .map(([arm, what]) => `${arm}: ${what}.`)
            .join("\n\n"),
        },
      ],
    },
    {
      title: "Settings",
      blocks: [
        {
          kind: "json",
          title: "All",
          value: {
            size,
            corpus: given.corpus,
            seeds,
            tuned: Object.fromEntries(Object.entries(results).map(([arm, { tuned }]) => [arm, tuned])),
          },
        },
      ],
    },
    {
      title: "Machine",
      blocks: [{ kind: "facts", facts: [...machineFacts(), { name: "Device", value: defaultDevice() }] }],
    },
  ],
});
console.log(`open ${join(folder, "report.html")}`);
