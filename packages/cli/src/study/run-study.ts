/** A study: trains every arm at its learning rate with every seed, then tells what came out. */
import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import { BatchGenerator, Transformer } from "@llmeff/models";
import { renderTextTable, writeReport } from "@llmeff/report";
import type { DeviceChoice } from "@llmeff/tensor";
import { metricOf } from "../config/data-schema.js";
import type { TrainingConfig } from "../config/training-schema.js";
import { UsageError } from "../errors.js";
import { type Io, print, printWrapped } from "../io.js";
import { openData } from "../run/data/open-data.js";
import { defined } from "../run/defined.js";
import { loadModel } from "../run/load-model.js";
import { modelConfig } from "../run/run-config.js";
import { checkpointsFolder, trainRun } from "../run/train-run.js";
import { writeText } from "../run/write-text.js";
import { type ArmResult, armResult } from "./arm-result.js";
import type { Ledger } from "./ledger.js";
import { type Arm, type Part, type Study, withLearningRate } from "./load-study.js";
import { type Outcome, readCurves, type SeedRun } from "./outcome.js";
import { findings } from "./prose.js";
import { type PartResult, studyReport } from "./report.js";
import type { SampleSettings } from "./schema.js";
import { slug } from "./slug.js";
import { openStudyFolder } from "./study-folder.js";
import { chosenRate, readSweep, type SweepResults } from "./sweep-file.js";
import { differenceTable, partsTable, resultTable } from "./tables.js";

const reportFile = "report.html";

/** @throws {UsageError} before anything is trained, if sweep or parameters don't fit */
export async function runStudy(io: Io, whole: Study, folder: string, only: string | undefined, signal: AbortSignal) {
  const sweep = await readSweep(whole);
  const study = restrict(whole, only);
  for (const part of study.parts) await requireEqualParameters(study, part);
  const ledger = await openStudyFolder(io, folder, identityOf(study, sweep));
  const results: PartResult[] = [];
  for (const part of study.parts) {
    print(io, `\n${part.title}`);
    const arms: ArmResult[] = [];
    for (const arm of part.arms) arms.push(await trainArm({ io, study, part, arm, folder, ledger, sweep, signal }));
    const result = { part, arms };
    printPart(io, result);
    results.push(result);
  }
  const path = join(folder, reportFile);
  await writeReport(path, studyReport(study, results, sweep, new Date()));
  await ledger.finish();
  print(io, `\nreport: ${relative(io.cwd, path)}`);
}

/** The arm of this name only; parts without it fall away. */
function restrict(study: Study, only: string | undefined): Study {
  if (only === undefined) return study;
  const chosen = study.parts.flatMap((part) => {
    const arms = part.arms.filter(({ name, id }) => [name, slug(name), id].includes(only));
    return arms.length === 0 ? [] : [{ ...part, arms }];
  });
  if (chosen.length > 0) return { ...study, parts: chosen };
  const known = study.parts.flatMap(({ arms }) => arms.map(({ id }) => id)).join(", ");
  throw new UsageError(`[study] there is no arm "${only}" in ${study.file}. Arms: ${known}.`);
}

function identityOf(study: Study, sweep: SweepResults): unknown {
  return study.parts.map((part) => ({
    part: part.name,
    target: part.target,
    seeds: part.seeds,
    sample: part.sample ?? null,
    arms: part.arms.map((arm) => ({
      arm: arm.name,
      config: withLearningRate(arm.config, chosenRate(sweep, part, arm)),
    })),
  }));
}

/** Arms of a part that claims it may differ by 2 % in what a token meets. */
async function requireEqualParameters(study: Study, part: Part): Promise<void> {
  if (part.equalParameters !== true) return;
  const counted: { name: string; count: number }[] = [];
  for (const { name, config } of part.arms) {
    const { vocabSize, close } = await openData(config.data, { configFile: study.file, seed: 0, evaluateWindows: 1 });
    await close();
    counted.push({ name, count: new Transformer(modelConfig(config, vocabSize)).activeParameterCount });
  }
  const counts = counted.map(({ count }) => count);
  if (Math.max(...counts) <= 1.02 * Math.min(...counts)) return;
  const list = counted.map(({ name, count }) => `${name} ${count.toLocaleString("en")}`).join(", ");
  throw new UsageError(
    `[study] ${part.name}: equalParameters allows 2 % between the arms; they have ${list}. Adjust ffnDim.`,
  );
}

interface ArmRun {
  io: Io;
  study: Study;
  part: Part;
  arm: Arm;
  folder: string;
  ledger: Ledger<Outcome>;
  sweep: SweepResults;
  signal: AbortSignal;
}

async function trainArm(run: ArmRun): Promise<ArmResult> {
  const { part, arm, sweep } = run;
  const config = withLearningRate(arm.config, chosenRate(sweep, part, arm));
  const runs: SeedRun[] = [];
  for (const seed of part.seeds) runs.push(await seedRun(run, { ...config, seed }, seed));
  return armResult(arm, config, runs);
}

/** The run with a seed: from the ledger if it is finished, otherwise begun or gone on with. */
async function seedRun(run: ArmRun, config: TrainingConfig, seed: number): Promise<SeedRun> {
  const { part, arm, ledger } = run;
  const id = `${arm.id}/seed-${seed}`;
  const folder = join(run.folder, id);
  let outcome = ledger.get(id);
  if (outcome === undefined) {
    outcome = await trainSeed(run, config, id, folder);
    await ledger.put(id, outcome);
  }
  return { seed, outcome, ...(await readCurves(folder, part.metric, part.target)) };
}

async function trainSeed(
  { io, study, part, signal }: ArmRun,
  config: TrainingConfig,
  id: string,
  folder: string,
): Promise<Outcome> {
  const resume = existsSync(join(folder, checkpointsFolder));
  const { tokensToStop: _, ...numbers } = await trainRun({
    config,
    configFile: study.file,
    folder,
    resume,
    io,
    signal,
    label: id,
  });
  const writes =
    part.sample !== undefined && metricOf(config.data) === "validationLoss" && config.seed === part.seeds[0];
  const sample = writes ? await writeSample(folder, part.sample!, config.device) : null;
  return { ...numbers, learningRate: config.optimizer.learningRate, sample };
}

async function writeSample(
  folder: string,
  settings: SampleSettings,
  device: DeviceChoice | undefined,
): Promise<string> {
  const { prompt, tokens, ...sampling } = settings;
  using loaded = await loadModel(folder, { device });
  using batch = new BatchGenerator(loaded.model, loaded.params);
  let whole = "";
  const ids = loaded.tokenizer!.encode(prompt);
  for await (const { text } of writeText(batch, loaded.tokenizer!, ids, { maxTokens: tokens, ...defined(sampling) }))
    whole += text;
  return whole;
}

function printPart(io: Io, { part, arms }: PartResult): void {
  for (const table of [resultTable(part, arms), differenceTable(part, arms), partsTable(part, arms)])
    if (table !== undefined) print(io, `\n${renderTextTable(table, { width: io.stdout.columns ?? 140 })}`);
  printWrapped(io, `\n${findings(part, arms)}`);
  for (const { name, sample } of arms) {
    if (sample === null) continue;
    print(io, `\n— ${name} —`);
    print(io, `${part.sample!.prompt}${sample}`);
  }
}
