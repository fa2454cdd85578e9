/**
 * Trains a small model to find needles in a few hundred tokens, and asks it for needles in up to ten million: how far beyond its training does recall hold?
 *
 *   npm start -- info                                              (once: builds the packages)
 *   node examples/long-recall.mjs                                  on a CPU, some minutes: trained on 1,024 tokens, asked in up to 65,536
 *   node examples/long-recall.mjs --size gpu --device cuda         on a GPU of 80 GB: trained on 4,096, asked in 10,485,760
 *
 * Options: --size cpu|gpu|smoke, --device cpu|cuda, --variant ours|rotary|unscaled|unwindowed|adamw, --lengths 4k,64k,1M, --haystacks N (texts of each length),
 * --needles N (needles in each, all asked), --seed N, --out FOLDER (default runs/long-recall-SIZE-VARIANT), --results FILE (adds a line of JSON for each length).
 * A second call goes on where the first stopped: a trained model isn't trained again, an answered question not asked again.
 *
 * Tokens are bytes. A text is prose with lines `The registry code for KEY is VALUE.` at random depths, and ends with a question for one key, as
 * `llmeff eval run --task niah_mk1` asks it; the other needles are distractors. All needles of a text are asked one after another, so that a text goes
 * through the model once. FOLDER is a run that `llmeff eval run --model local:FOLDER` opens.
 *
 * What holds beyond the training length: layers with a window and rotary positions write at each place what was said shortly before; one layer sees everything
 * and has no positions, so that no distance is new to it, with queries and keys of fixed norm. The more keys it sees, the larger the share that all
 * others have in its softmax: from the training length on its logits grow with ln n (`scaleFrom`).
 *
 * What was tried at CPU size: Muon finds the mechanism in 100 to 300 steps, AdamW had not begun to after 300 (loss 0.009 against 1.69 on short needles). Three layers with
 * windows reach in 600 steps a loss of 0.02, two of them 0.10 in 700. Having seen at most four needles at a time, the model took keys that share a word for
 * each other among twenty (86 % at 4k); the last phase, with up to fourteen, brings 95 % at 4k and 96 % at 16k. Among four, 100 of 100 at every length to 64k.
 * The GPU size, 3.1 million parameters, trains in 76 seconds of a H200 and answered 591 of 591 questions at 4k to 2M tokens (bench/results/long-recall.jsonl): 5.7 s for a
 * text of 2M tokens, nearly all in the one layer that sees everything. Beyond, it has not been run; by arithmetic a text of 10,485,760 tokens takes 5.6e16 operations, two to
 * three minutes, and a cache of 5.4 GB in bfloat16.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { byteTokenizer, Random } from "@llmeff/data";
import {
  evaluationReport,
  niah,
  readResults,
  runEvaluation,
  scoreSample,
  tokensLabel,
  wilsonInterval,
} from "@llmeff/longcontext";
import { localModel } from "@llmeff/longcontext/local";
import { kvCacheBytes, Transformer } from "@llmeff/models";
import { AdamW, cosine, Muon } from "@llmeff/optim";
import {
  createProgress,
  formatCompact,
  formatDuration,
  machineFacts,
  renderTextTable,
  writeReport,
} from "@llmeff/report";
import { defaultDevice, memory, resetPeakMemory, setDefaultDevice } from "@llmeff/tensor";
import { latestCheckpoint, loadCheckpoint, train } from "@llmeff/train";

const k = 1024;
const M = k * k;
/**
 * Stages: sequences of `seqLen` with at most so many needles, of which so many are asked. Among a dozen needles some share a word of their keys, which is
 * what a model must learn last; it has an optimizer of its own for that (`last`). `scaleFrom`: see above.
 */
const sizes = {
  smoke: {
    model: { dModel: 32, numLayers: 2, numHeads: 2, headDim: 16, ffnDim: 64 },
    window: 16,
    dtype: "float32",
    tokensPerStep: 1024,
    first: { rate: 0.02, stages: [{ seqLen: 256, steps: 6, needles: 1, asked: 1 }] },
    last: { rate: 0.01, stages: [{ seqLen: 512, steps: 2, needles: 2, asked: 1 }] },
    scaleFrom: 256,
    lengths: [512, k],
    haystacks: 2,
    needles: 2,
    prefillChunk: 256,
  },
  cpu: {
    model: { dModel: 64, numLayers: 4, numHeads: 4, headDim: 32, ffnDim: 176 },
    window: 64,
    dtype: "float32",
    tokensPerStep: 4096,
    first: {
      rate: 0.02,
      stages: [
        { seqLen: 160, steps: 120, needles: 1, asked: 1 },
        { seqLen: 320, steps: 400, needles: 2, asked: 2 },
        { seqLen: 512, steps: 600, needles: 4, asked: 3 },
      ],
    },
    last: { rate: 0.01, stages: [{ seqLen: k, steps: 600, needles: 14, asked: 3 }] },
    scaleFrom: 512,
    lengths: [k, 4 * k, 16 * k, 64 * k],
    haystacks: 25,
    needles: 4,
    prefillChunk: 2 * k,
  },
  gpu: {
    model: { dModel: 256, numLayers: 4, numHeads: 4, numKvHeads: 2, headDim: 64, ffnDim: 704, rotaryDim: 32 },
    window: 64,
    dtype: "bfloat16",
    tokensPerStep: 128 * k,
    first: {
      rate: 0.01,
      stages: [
        { seqLen: 256, steps: 400, needles: 1, asked: 1, tokensPerStep: 32 * k },
        { seqLen: 512, steps: 600, needles: 4, asked: 3, tokensPerStep: 32 * k },
      ],
    },
    last: { rate: 0.005, stages: [{ seqLen: 4 * k, steps: 800, needles: 40, asked: 20 }] },
    scaleFrom: 512,
    lengths: [4 * k, 128 * k, 512 * k, M, 2 * M, 4 * M, 10 * M],
    haystacks: 3,
    needles: 40,
    prefillChunk: 64 * k,
  },
};
/** What the layer that sees everything has, what the others have, and who trains. */
const variants = {
  ours: {},
  rotary: { everywhere: { rope: true } },
  unscaled: { everywhere: { scaleFrom: undefined } },
  unwindowed: { nearby: { window: undefined } },
  adamw: { adamw: true },
};

const { values: given } = parseArgs({
  options: {
    size: { type: "string", default: "cpu" },
    device: { type: "string" },
    variant: { type: "string", default: "ours" },
    lengths: { type: "string" },
    haystacks: { type: "string" },
    needles: { type: "string" },
    seed: { type: "string", default: "1" },
    out: { type: "string" },
    results: { type: "string" },
  },
});
function chosen(option, table) {
  if (Object.hasOwn(table, given[option])) return table[given[option]];
  throw new Error(`--${option} must be one of ${Object.keys(table).join(", ")}; received ${given[option]}.`);
}
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const tokensOf = (text) => Number.parseFloat(text) * (text.endsWith("M") ? M : text.endsWith("k") ? k : 1);
const size = chosen("size", sizes);
const variant = chosen("variant", variants);
const lengths = given.lengths?.split(",").map(tokensOf) ?? size.lengths;
const haystacks = Number(given.haystacks ?? size.haystacks);
const needles = Number(given.needles ?? size.needles);
const seed = Number(given.seed);
const folder = given.out ?? join("runs", `long-recall-${given.size}-${given.variant}`);
if (given.device !== undefined) setDefaultDevice(given.device);
mkdirSync(folder, { recursive: true });

const trainedLength = size.last.stages.at(-1).seqLen;
const nearby = { kind: "dot", window: size.window, ...variant.nearby };
const everywhere = { kind: "dot", rope: false, scaleFrom: size.scaleFrom, ...variant.everywhere };
const config = {
  ...size.model,
  vocabSize: 256,
  maxSeqLen: Math.max(trainedLength, ...lengths),
  qkNorm: true,
  attention: [...Array.from({ length: size.model.numLayers - 1 }, () => nearby), everywhere].map(defined),
};
const model = new Transformer(config);
const tokenizer = byteTokenizer();
function defined(options) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

const needleStart = "The registry code for ";
/** A text with its parts: lines of prose, lines of needles, and the question for a key. */
function textOf(options, keys) {
  const sample = niah({ reserve: 16, ...options }, { variant: "niah_mk1", keys });
  const { content } = sample.messages[0];
  const at = content.lastIndexOf("\n\nQuestion:");
  const asking = (key) => content.slice(at).replace(sample.meta.queries[0], key);
  return { sample, text: content.slice(0, at), asking, needles: sample.meta.needles };
}

/** Rows for training: prose cut anywhere, needles at random places in it, then questions with their answers, on which alone there is a loss. */
class Rows {
  constructor(stage, seed) {
    Object.assign(this, {
      ...stage,
      random: new Random(seed),
      batchSize: Math.max(1, Math.floor((stage.tokensPerStep ?? size.tokensPerStep) / stage.seqLen)),
    });
    const { text, asking, needles } = textOf({ seed: 1_000_003, index: 0, maxTokens: 4 * M }, 10_000);
    this.keys = needles.map(([key]) => key);
    const prose = text
      .split("\n")
      .slice(2)
      .filter((line) => !line.startsWith(needleStart));
    Object.assign(this, { prose: Buffer.from(prose.join("\n")), asking });
  }

  next() {
    const { batchSize, seqLen } = this;
    const tokens = new Int32Array(batchSize * seqLen);
    const targets = new Int32Array(batchSize * seqLen).fill(-100);
    for (let b = 0; b < batchSize; b++) this.#write(tokens.subarray(b * seqLen), targets.subarray(b * seqLen));
    return { tokens, targets, batchSize, seqLen };
  }

  #write(tokens, targets) {
    const { random, seqLen } = this;
    let hidden;
    let asked;
    let room;
    do {
      const count = random.integer(1, this.needles + 1);
      hidden = Array.from({ length: count }, () => [
        this.keys[random.integer(0, this.keys.length)],
        String(random.integer(1e6, 1e7)),
      ]);
      asked = Array.from(random.permutation(count))
        .slice(0, this.asked)
        .map((i) => [this.asking(hidden[i][0]), ` ${hidden[i][1]}\n`]);
      const needed = [...hidden.map(([key, value]) => lineOf(key, value)), ...asked.flat()].join("").length;
      room = seqLen + 1 - needed;
    } while (room < 0);
    const from = random.integer(0, this.prose.length - room);
    const places = hidden.map(() => random.integer(0, room + 1)).sort((a, b) => a - b);
    const pieces = hidden.flatMap(([key, value], i) => [
      this.prose.subarray(from + (places[i - 1] ?? 0), from + places[i]),
      Buffer.from(lineOf(key, value)),
    ]);
    const text = Buffer.concat([
      ...pieces,
      this.prose.subarray(from + places.at(-1), from + room),
      Buffer.from(asked.flat().join("")),
    ]);
    tokens.set(text.subarray(0, seqLen));
    let end = text.length - asked.flat().join("").length;
    for (const [question, answer] of asked) {
      end += question.length;
      for (const byte of Buffer.from(answer)) targets[end++ - 1] = byte;
    }
  }

  state() {
    return {};
  }

  restore() {}
}
const lineOf = (key, value) => `\n${needleStart}${key} is ${value}.\n`;

/** The parameters: those of the folder's checkpoint, or newly trained, stage after stage. */
async function trained() {
  const told = join(folder, "training.json");
  const found =
    (await latestCheckpoint(join(folder, "checkpoints"))) ?? (await latestCheckpoint(join(folder, "first")));
  const params = found ? (await loadCheckpoint(found.path)).params : model.init(seed, { dtype: size.dtype });
  const about = existsSync(told) ? JSON.parse(readFileSync(told, "utf8")) : { seconds: 0, losses: [] };
  for (const [phase, directory] of [
    ["first", "first"],
    ["last", "checkpoints"],
  ]) {
    if (await latestCheckpoint(join(folder, directory))) continue;
    await trainPhase(phase, params, join(folder, directory), about);
    writeFileSync(told, JSON.stringify(about));
  }
  return { params, ...about };
}

/** Trains for the stages of a phase, and adds to what is told of the training. */
async function trainPhase(phase, params, directory, about) {
  const { stages, rate } = size[phase];
  const steps = stages.reduce((sum, stage) => sum + stage.steps, 0);
  const schedule = (rate) => cosine(rate, steps, { warmupSteps: Math.ceil(steps / 20), minRatio: 0.05 });
  const adamLearningRate = schedule(0.3 * rate);
  const optimizer = variant.adamw
    ? new AdamW(params, { learningRate: adamLearningRate, beta2: 0.98, weightDecay: 0.01, maxGradNorm: 1 })
    : new Muon(params, {
        ...{ learningRate: schedule(rate), adamLearningRate, maxGradNorm: 1 },
        groups: [{ params: /embed|head/, method: "adamw" }],
      });
  const progress = createProgress({ stream: process.stderr, total: steps, label: `training, ${phase}` });
  const training = {
    example: "long-recall",
    size: given.size,
    variant: given.variant,
    first: size.first,
    last: size.last,
  };
  let done = 0;
  for (const [i, stage] of stages.entries()) {
    const options = {
      ...{ params, optimizer, steps: stage.steps, seed, captureStep: true },
      objective: (p, batch) => model.loss(p, batch),
      data: new Rows(stage, 100 * seed + (phase === "last" ? 50 : 0) + i),
      config: { model: config, tokenizer: tokenizer.toJSON(), training },
      ...(i === stages.length - 1 ? { checkpoint: { directory } } : {}),
    };
    let before = 0;
    for await (const event of train(options)) {
      if (event.type !== "step") continue;
      about.losses.push(event.loss);
      about.seconds += event.seconds - before;
      before = event.seconds;
      progress.update(++done, { note: `loss ${event.loss.toFixed(3)} on ${stage.seqLen} tokens` });
    }
  }
  progress.finish();
  optimizer.dispose();
  console.log(
    `trained for ${steps} steps, in all ${formatDuration(about.seconds)}: loss ${about.losses.at(-1).toFixed(4)}`,
  );
}

/** As many as leave some prose between them. */
function needlesIn(length) {
  return Math.max(1, Math.min(needles, Math.floor((length - 300) / 100)));
}

/** The samples of some lengths: those of a text share all but the question, so that they are asked in a row. */
function* questions(lengths) {
  for (const maxTokens of lengths) {
    for (let index = 0; index < haystacks; index++) {
      const { sample, text, asking, needles } = textOf({ seed: 77 + seed, index, maxTokens }, needlesIn(maxTokens));
      for (const [i, [key, value]] of needles.entries()) {
        const meta = { ...sample.meta, variant: "long_recall", queries: [key], depths: [sample.meta.depths[i]] };
        yield {
          ...sample,
          id: `${sample.id}-${i}`,
          complexity: 1,
          meta,
          target: [value],
          messages: [{ role: "user", content: text + asking(key) }],
        };
      }
    }
  }
}

/** What a pass over a prompt of `tokens` takes, without computing it. */
function costOf(tokens) {
  const flops = (model.flopsPerToken(tokens).total / 3) * tokens; // a third of a training step's is forward
  return {
    flops,
    cacheBytes: kvCacheBytes(model.config, tokens, { bytesPerValue: size.dtype === "bfloat16" ? 2 : 4 }),
  };
}

console.log(
  `${formatCompact(model.parameterCount)} parameters; a text of ${formatCompact(Math.max(...lengths))} tokens takes ${describeCost(costOf(Math.max(...lengths)))}`,
);
function describeCost({ flops, cacheBytes }) {
  return `${formatCompact(flops)} operations (${formatDuration(flops / 4e14)} at 400 TFLOP/s) and a cache of ${(cacheBytes / 1e9).toFixed(2)} GB`;
}

const { params, losses, seconds: trainingSeconds } = await trained();
const id = `long-recall-${given.size}-${given.variant}`;
// An answer ends with its line.
const stopTokens = tokenizer.encode("\n");
const subject = localModel(model, params, tokenizer, { id, stopTokens, prefillChunk: size.prefillChunk });
const total = lengths.reduce((sum, length) => sum + haystacks * needlesIn(length), 0);
const progress = createProgress({ stream: process.stderr, total, label: "recall" });
const peakBytes = new Map();
let answered = 0;
for (const length of lengths) {
  resetPeakMemory();
  const { skipped } = await runEvaluation({
    folder,
    models: [{ model: subject, concurrency: { max: 1 } }],
    samples: () => questions([length]),
    score: scoreSample,
    config: { task: "long_recall", trainedLength, needles, seed }, // further texts of a length may come later
    onResult: (_, { written }) => progress.update(answered + written),
  });
  answered += haystacks * needlesIn(length);
  if (skipped === 0) peakBytes.set(length, memory().peakBytes);
}
progress.finish();
await subject.close();

const records = [];
const { header } = await readResults(join(folder, "results.jsonl"), (record) => records.push(record));
/** One length: how many of its questions were answered right, and what a text and a question took. */
function rowOf(length) {
  const own = records.filter(({ maxTokens }) => maxTokens === length);
  const right = own.filter(({ score }) => score === 1).length;
  const [low, high] = wilsonInterval(right, own.length);
  const seconds = (some) => some.reduce((sum, { totalMs }) => sum + totalMs, 0) / 1000 / some.length;
  // The first question of a text takes the text through the model, the others the question alone.
  const [first, others] = [true, false].map((is) => own.filter(({ usage }) => usage.cachedTokens < length / 2 === is));
  return {
    ...{
      length,
      needles: needlesIn(length),
      texts: first.length,
      trials: own.length,
      right,
      recall: right / own.length,
      low,
      high,
    },
    secondsPerText: seconds(first),
    secondsPerQuestion: others.length === 0 ? null : seconds(others),
    peakBytes: peakBytes.get(length) ?? null,
  };
}
const rows = lengths.map(rowOf);
const device = defaultDevice();
const machine = Object.fromEntries(machineFacts().map(({ name, value }) => [name, value]));
if (given.results !== undefined) {
  mkdirSync(dirname(given.results), { recursive: true });
  const about = {
    bench: "long-recall",
    size: given.size,
    variant: given.variant,
    parameters: model.parameterCount,
    trainedLength,
    trainingSeconds: trainingSeconds ?? null,
  };
  appendFileSync(
    given.results,
    rows
      .map((row) => `${JSON.stringify({ ...about, ...row, device, machine, date: new Date().toISOString() })}\n`)
      .join(""),
  );
}

const table = {
  columns: [
    { header: "Tokens" },
    { header: "Length", unit: "× trained", style: "integer" },
    { header: "Texts", style: "integer" },
    { header: "Right", align: "right" },
    { header: "Recall", unit: "95 % interval", align: "right" },
    { header: "Seconds", unit: "a text", style: "fixed", digits: 2 },
    { header: "Seconds", unit: "a question", style: "fixed", digits: 2 },
    { header: "Memory", unit: "MiB at most", style: "integer" },
  ],
  rows: rows.map((row) => [
    tokensLabel(row.length),
    row.length / trainedLength,
    row.texts,
    `${row.right} of ${row.trials}`,
    `${percent(row.recall)} [${percent(row.low)}, ${percent(row.high)}]`,
    row.secondsPerText,
    row.secondsPerQuestion,
    row.peakBytes === null ? null : Math.round(row.peakBytes / 2 ** 20),
  ]),
  note: `Wilson's intervals. Up to ${needles} needles in a text, which are asked one by one; seconds a text: those of its first question.`,
};
console.log(renderTextTable(table, { width: process.stdout.columns ?? 140 }));
const { sections } = evaluationReport({ header, records });
await writeReport(join(folder, "report.html"), {
  title: "How far does recall hold?",
  subtitle: `${formatCompact(model.parameterCount)} parameters, trained on ${trainedLength} tokens, asked in up to ${tokensLabel(Math.max(...lengths))}`,
  sections: [
    { title: "Recall by length", blocks: [{ kind: "table", ...table }] },
    ...(losses.length === 0 ? [] : [{ title: "Training", blocks: [trainingChart()] }]),
    ...sections.filter(({ title }) => title === "long_recall" || title === "How it was run"),
    {
      title: "Settings and machine",
      blocks: [
        { kind: "json", title: "Model and curriculum", value: { config, size, variant: given.variant, seed } },
        { kind: "facts", facts: [...machineFacts(), { name: "Device", value: device }] },
      ],
    },
  ],
});
console.log(`open ${join(folder, "report.html")}`);

function trainingChart() {
  return {
    kind: "lineChart",
    title: "Loss of the answers",
    caption: `Sequences of ${[...size.first.stages, ...size.last.stages].map(({ seqLen, steps }) => `${seqLen} tokens for ${steps} steps`).join(", ")}: each stage asks for more.`,
    x: { label: "step" },
    y: { label: "nats/token", scale: "log" },
    smoothing: 20,
    series: [{ name: given.variant, x: losses.map((_, i) => i + 1), y: losses }],
  };
}
