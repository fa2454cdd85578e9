/**
 * Does a large model learn faster if a small one teaches it first? SALT (arXiv:2410.18779) on text: plain training (BASELINE), distillation throughout (RKD), SALT,
 * and SALT with selected sequences (SALT_DS), at equal steps, equal operations and equal seconds, each at as many learning rates and then over several seeds.
 *
 *   npm start -- info                                (once: builds the packages)
 *   node examples/salt.mjs                           on a CPU, tiny-shakespeare
 *   node examples/salt.mjs --size gpu --device cuda --corpus books.jsonl.gz
 *
 * Options: --size cpu|gpu|smoke, --device cpu|cuda, --corpus FILE (.txt, .jsonl or .parquet; text files also as .gz), --out FOLDER (default runs/salt-SIZE),
 * --seeds 1,2,3, --arms BASELINE,SALT (makes the runs of these alone: several GPUs can share the work), --results FILE (default FOLDER/results.jsonl).
 * Every run is a line of the results with its settings and curve; a second call makes only those that are missing. FOLDER/report.html shows all.
 */
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
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
import { machineFacts, renderTextTable, studentInterval, writeReport } from "@llmeff/report";
import { defaultDevice, setDefaultDevice } from "@llmeff/tensor";
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
    seqLen: 256,
    batchSize: 64,
    steps: 1000,
    teacherSteps: 1000,
    earlyTeacherStep: 130,
    distilledSteps: 173,
    pool: 2 ** 16,
    evaluateEvery: 40,
    evaluateWindows: 512,
    rates: [5e-4, 1e-3, 2e-3],
    warmupSteps: 50,
    dtype: "bfloat16",
    maxTokens: 2 ** 24,
    teacher: shape(192, 4, 3),
    student: shape(384, 6, 6),
  },
};
const arms = {
  BASELINE: "plain training",
  RKD: "the teacher throughout",
  SALT: "the teacher in the first steps, then plain training",
  SALT_DS: "as SALT, its first steps on sequences that an early teacher finds hard yet learnable",
};
const tuningSeed = 101;

const { values: given } = parseArgs({
  options: {
    size: { type: "string", default: "cpu" },
    device: { type: "string" },
    corpus: { type: "string", default: fileURLToPath(new URL("../datasets/tiny-shakespeare.txt.gz", import.meta.url)) },
    out: { type: "string" },
    results: { type: "string" },
    seeds: { type: "string", default: "1,2,3" },
    arms: { type: "string" },
  },
});
const size = sizes[given.size];
if (size === undefined)
  throw new Error(`--size must be one of ${Object.keys(sizes).join(", ")}; received ${given.size}.`);
const folder = given.out ?? join("runs", `salt-${given.size}`);
const seeds = given.seeds.split(",").map(Number);
const made = given.arms?.split(",") ?? Object.keys(arms);
const unknown = made.find((arm) => !Object.hasOwn(arms, arm));
if (unknown !== undefined)
  throw new Error(`--arms must be some of ${Object.keys(arms).join(", ")}; received ${unknown}.`);
if (given.device !== undefined) setDefaultDevice(given.device);
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
  const { evaluateEvery } = size;
  for await (const event of train({ ...options, optimizer, steps, evaluate, evaluateEvery, captureStep: true })) {
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

const ledger = given.results ?? join(folder, "results.jsonl");
const records = existsSync(ledger)
  ? readFileSync(ledger, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
  : [];

const textHash = createHash("sha256").update(text.train).digest("hex");
/** Seconds compare within a process: others may have shared the machine. */
const session = { began: new Date().toISOString(), machine: machineFacts() };

function settingsOf(arm, rate, seed) {
  return {
    ...{ arm, rate, seed, size, corpus: basename(given.corpus), tokens: text.train.length, sha256: textHash },
    device: defaultDevice(),
  };
}

/** The run with these settings in the ledger, if it is there. */
function kept(settings) {
  const key = JSON.stringify(settings);
  return records.find((record) => JSON.stringify(record.settings) === key);
}

function keep(record) {
  const { arm, rate, seed } = record.settings;
  const { losses, seconds } = record.curve;
  records.push(record);
  mkdirSync(dirname(ledger), { recursive: true });
  appendFileSync(ledger, `${JSON.stringify(record)}\n`);
  console.log(`${arm}, rate ${rate}, seed ${seed}: loss ${losses.at(-1).toFixed(4)} in ${seconds.at(-1).toFixed(1)} s`);
  return record;
}

const teacherSeed = 7;
const teacherSettings = settingsOf("TEACHER", size.rates.at(-1), teacherSeed);
let taught;
/** One teacher for all runs, with the windows that its early state selects; trained when the first run asks for it. */
function teacherOnce() {
  taught ??= trainedTeacher();
  return taught;
}

async function trainedTeacher() {
  const params = initial(teacherModel, teacherSeed);
  let early;
  const options = { params, objective: teacherModel.loss.bind(teacherModel), data: streamOf(teacherSeed) };
  const onStep = (step) => {
    if (step === size.earlyTeacherStep) early = copied(params);
  };
  const { rate } = teacherSettings;
  const curve = await curveOf(teacherModel, options, { steps: size.teacherSteps, rate, onStep });
  if (kept(teacherSettings) === undefined) keep({ settings: teacherSettings, curve, session });
  const model = tokenModel(teacherModel);
  return { model, params, starts: await selectedStarts({ model, params: early }) };
}

/** The hardest learnable windows of a pool, as many as the first stage takes. */
async function selectedStarts(scorer) {
  const starts = new TokenDataset(text.train, { seqLen, batchSize, seed: 5 }).windowStarts(0).subarray(0, size.pool);
  const scores = await scoreSequences(scorer, windowsAt(text.train, starts, { seqLen, batchSize }));
  return selectTop(scores, size.distilledSteps * batchSize).map((i) => starts[i]);
}

/** A run of an arm: from the ledger if it has one with these settings. */
async function runOf(arm, rate, seed) {
  const settings = settingsOf(arm, rate, seed);
  const found = kept(settings);
  if (found) return found;
  const teacher = arm === "BASELINE" ? undefined : await teacherOnce();
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
  return keep({ settings, curve, session });
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
  const { mean: center, low, high } = studentInterval(values);
  if (values.length < 2) return center.toFixed(digits);
  return `${center.toFixed(digits)} (${low.toFixed(digits)} … ${high.toFixed(digits)})`;
}

const results = {};
for (const arm of made) {
  const tuned = [];
  for (const rate of size.rates) tuned.push({ rate, loss: (await runOf(arm, rate, tuningSeed)).curve.losses.at(-1) });
  const [{ rate }] = tuned.toSorted((a, b) => a.loss - b.loss);
  const runs = [];
  for (const seed of seeds) runs.push((await runOf(arm, rate, seed)).curve);
  results[arm] = { rate, tuned, runs };
}

if (made.length < Object.keys(arms).length) {
  console.log(`${ledger} has the runs of ${made.join(", ")}; a call without --arms makes the others and the report`);
  process.exit();
}
if (kept(teacherSettings) === undefined) await teacherOnce();
const teacherLoss = kept(teacherSettings).curve.losses.at(-1);
console.log(
  `teacher: ${teacherModel.parameterCount} parameters, loss ${teacherLoss.toFixed(4)}; student: ${studentModel.parameterCount}`,
);

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

const sessions = new Set(records.map((record) => record.session.began)).size;
const secondsNote =
  sessions > 1
    ? ` The runs were made by ${sessions} processes: their seconds compare as far as nothing else kept the machine busy.`
    : "";
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
  note: `Validation loss, mean and standard error over ${seeds.length} seeds, each arm at the best of ${size.rates.length} rates of another seed. An arm that takes longer is read where the baseline ends.${secondsNote}`,
};
const reaching = {
  columns: [{ header: "Arm" }, { header: "Steps, %" }, { header: "Seconds, %" }, { header: "Cost" }],
  rows: Object.entries(rows).map(([arm, { steps, seconds, cost }]) => [arm, steps, seconds, cost]),
  note: `Where the arm first reaches the final loss of the baseline of the same seed, of the baseline's whole run, with 95 % intervals. The paper: at most 70 % of the steps, 25 to 29 % fewer seconds.${secondsNote}`,
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
          references: [{ value: teacherLoss, label: "teacher" }],
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
