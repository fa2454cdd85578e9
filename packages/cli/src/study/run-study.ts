/** A study: trains every arm at its learning rate, then tells what came out. */
import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import { Transformer } from "@llmeff/models";
import { renderTextTable, writeReport } from "@llmeff/report";
import { UsageError } from "../errors.js";
import { type Io, print } from "../io.js";
import { defined } from "../run/defined.js";
import { loadModel } from "../run/load-model.js";
import { openData } from "../run/open-data.js";
import { modelConfig } from "../run/run-config.js";
import { checkpointsFolder, trainRun } from "../run/train-run.js";
import { writeText } from "../run/write-text.js";
import type { Ledger } from "./ledger.js";
import { type Arm, type Part, type Study, withLearningRate } from "./load-study.js";
import { type ArmResult, type Outcome, readCurves } from "./outcome.js";
import { findings } from "./prose.js";
import { type PartResult, studyReport } from "./report.js";
import type { SampleSettings } from "./schema.js";
import { slug } from "./slug.js";
import { openStudyFolder } from "./study-folder.js";
import { chosenRate, readSweep, type SweepResults } from "./sweep-file.js";
import { resultTable } from "./tables.js";

export const reportFile = "report.html";

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
    for (const arm of part.arms) arms.push(await armResult({ io, study, part, arm, folder, ledger, sweep, signal }));
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
    sample: part.sample ?? null,
    arms: part.arms.map((arm) => ({
      arm: arm.name,
      config: withLearningRate(arm.config, chosenRate(sweep, part, arm)),
    })),
  }));
}

/** Arms of a part that claims it may differ by 2 % in size. */
async function requireEqualParameters(study: Study, part: Part): Promise<void> {
  if (part.equalParameters !== true) return;
  const counted: { name: string; count: number }[] = [];
  for (const { name, config } of part.arms) {
    const { vocabSize } = await openData(config.data, { configFile: study.file, seed: 0, evaluateWindows: 1 });
    counted.push({ name, count: new Transformer(modelConfig(config, vocabSize)).parameterCount });
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

async function armResult(run: ArmRun): Promise<ArmResult> {
  const { part, arm, ledger, sweep } = run;
  const config = withLearningRate(arm.config, chosenRate(sweep, part, arm));
  const folder = join(run.folder, arm.id);
  let outcome = ledger.get(arm.id);
  if (outcome === undefined) {
    outcome = await trainArm({ ...run, arm: { ...arm, config } }, folder);
    await ledger.put(arm.id, outcome);
  }
  const curves = await readCurves(folder, part.metric, part.target);
  return { name: arm.name, description: arm.description, config, outcome, ...curves };
}

async function trainArm({ io, study, part, arm, signal }: ArmRun, folder: string): Promise<Outcome> {
  const { config, id } = arm;
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
  const sample =
    part.sample === undefined || config.data.kind !== "text" ? null : await writeSample(folder, part.sample);
  return { ...numbers, learningRate: config.optimizer.learningRate, sample };
}

async function writeSample(folder: string, settings: SampleSettings): Promise<string> {
  const { prompt, tokens, ...sampling } = settings;
  using loaded = await loadModel(folder);
  let text = "";
  for await (const piece of writeText(loaded, loaded.tokenizer!, prompt, { maxTokens: tokens, ...defined(sampling) })) {
    text += piece;
  }
  return text;
}

function printPart(io: Io, { part, arms }: PartResult): void {
  print(io, `\n${renderTextTable(resultTable(part, arms), { width: io.stdout.columns ?? 140 })}`);
  print(io, `\n${findings(part, arms)}`);
  for (const { name, outcome } of arms) {
    if (outcome.sample === null) continue;
    print(io, `\n— ${name} —`);
    print(io, `${part.sample!.prompt}${outcome.sample}`);
  }
}
