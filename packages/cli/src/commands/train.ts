/** `llmeff train CONFIG` */
import { join, relative, resolve } from "node:path";
import { formatCompact, formatDuration, formatNumber, writeFileAtomic } from "@llmeff/report";
import type { DeviceChoice } from "@llmeff/tensor";
import { bestCheckpoint, latestCheckpoint } from "@llmeff/train";
import { formatJson } from "../config/format-json.js";
import { differences, toJson } from "../config/merge.js";
import { readConfig } from "../config/read-config.js";
import { lossUnit, type TrainingConfig, type TrainingDType, trainingSchema } from "../config/training-schema.js";
import { InterruptedError, UsageError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import { type Io, print } from "../io.js";
import { defined } from "../run/defined.js";
import { estimateRun, type RunEstimate } from "../run/estimate-run.js";
import { makeFolder } from "../run/make-folder.js";
import { metricsFile } from "../run/recorder.js";
import { readRunConfig } from "../run/run-config.js";
import { checkpointsFolder, type RunResult, trainRun } from "../run/train-run.js";

export interface TrainCommandOptions {
  out?: string;
  resume?: boolean;
  steps?: number;
  seed?: number;
  device?: DeviceChoice;
  dtype?: TrainingDType;
  dryRun?: boolean;
}

export async function trainCommand(io: Io, configPath: string, options: TrainCommandOptions): Promise<void> {
  const configFile = resolve(io.cwd, configPath);
  const config = withOptions(await readConfig(configFile, trainingSchema), options);
  if (options.dryRun) {
    printEstimate(io, await interruptible(io, (signal) => estimateRun(config, { configFile, signal })), config);
    return;
  }
  const folder = resolve(io.cwd, options.out ?? join("runs", config.name));
  const resume = options.resume ?? false;
  await requireFittingCheckpoint(folder, config, resume);
  await makeFolder(folder);
  await writeFileAtomic(join(folder, "config.json"), formatJson(config));
  const { out, steps, seed, device, dtype } = options;
  const given = Object.entries({ out, steps, seed, device, dtype }).filter(([, value]) => value !== undefined);
  const again = `llmeff train ${configPath}${given.map(([name, value]) => ` --${name} ${value}`).join("")} --resume`;
  const result = await interruptible(io, async (signal) => {
    try {
      return await trainRun({ config, configFile, folder, resume, io, signal, label: config.name, verbose: true });
    } catch (error) {
      if (!(error instanceof InterruptedError)) throw error;
      throw new InterruptedError(`[train] interrupted; the last step is saved. Go on with: ${again}`);
    }
  });
  await printSummary(io, result, folder, config);
}

function withOptions(config: TrainingConfig, { steps, seed, device, dtype }: TrainCommandOptions): TrainingConfig {
  return {
    ...config,
    ...(seed === undefined ? {} : { seed }),
    ...(device === undefined ? {} : { device }),
    ...(dtype === undefined ? {} : { dtype }),
    training: { ...config.training, ...(steps === undefined ? {} : { steps }) },
  };
}

/** A run goes on only with the settings that it was started with; how long it goes on, and where, is free. */
async function requireFittingCheckpoint(folder: string, config: TrainingConfig, resume: boolean): Promise<void> {
  const found = await latestCheckpoint(join(folder, checkpointsFolder));
  if (found === undefined) return;
  if (!resume) {
    throw new UsageError(
      `[train] ${folder} holds a run up to step ${found.step}. Go on with --resume, or choose another folder with --out DIR.`,
    );
  }
  const changed = differences(decisive(readRunConfig(found.path, found.state.config).training), decisive(config));
  if (changed.length === 0) return;
  const list = changed.map(({ path, a, b }) => `  ${path}: was ${JSON.stringify(a)}, is ${JSON.stringify(b)}`);
  throw new UsageError(
    `[train] ${folder} was started with other settings:\n${list.join("\n")}\n` +
      "Set them back to go on with --resume, or start a run of its own with --out DIR.",
  );
}

/** The settings that decide a run's numbers, but for its length. */
function decisive(config: TrainingConfig) {
  const { training: _, device: __, ...settings } = toJson(config);
  const { zLoss = 0, labelSmoothing = 0, routerBiasRate, averageDecay, lossScale } = config.training;
  return {
    dtype: "float32",
    ...settings,
    training: toJson(defined({ zLoss, labelSmoothing, routerBiasRate, averageDecay, lossScale })),
  };
}

function printEstimate(io: Io, estimate: RunEstimate, { training }: TrainingConfig): void {
  const { device, parameterBytes, optimizerBytes, peakBytes, tokensPerStep, secondsPerStep, seconds } = estimate;
  const megabytes = (bytes: number) => `${formatNumber(Math.ceil(bytes / 1e6))} MB`;
  const rate = tokensPerStep / secondsPerStep;
  print(io, `${parametersOf(estimate)}, ${formatCompact(estimate.flopsPerToken)} operations a token`);
  print(
    io,
    `${megabytes(peakBytes)} on ${device}: parameters ${megabytes(parameterBytes)}, optimizer ${megabytes(optimizerBytes)}, gradients and activations ${megabytes(peakBytes - parameterBytes - optimizerBytes)}`,
  );
  print(io, `${formatCompact(rate)} tokens/s${utilizationOf(estimate, rate)}`);
  print(
    io,
    `${formatNumber(training.steps)} steps of ${formatNumber(tokensPerStep)} tokens take about ${formatDuration(seconds)}, without evaluations and checkpoints`,
  );
}

function parametersOf({ parameters, activeParameters }: Pick<RunResult, "parameters" | "activeParameters">): string {
  const active = activeParameters < parameters ? ` (${formatCompact(activeParameters)} active)` : "";
  return `${formatCompact(parameters)} parameters${active}`;
}

function utilizationOf({ flopsPerToken, peakFlops }: Pick<RunEstimate, "flopsPerToken" | "peakFlops">, rate: number) {
  return peakFlops === undefined ? "" : `, MFU ${((100 * flopsPerToken * rate) / peakFlops).toFixed(1)} %`;
}

async function printSummary(io: Io, result: RunResult, folder: string, config: TrainingConfig): Promise<void> {
  const { steps, tokens, seconds, value, standardError, flopsPerToken, peakFlops } = result;
  const rate = tokens / seconds;
  const quality =
    config.data.kind === "text"
      ? `validation loss ${value.toFixed(4)} ± ${standardError.toFixed(4)} ${lossUnit(config.data)}`
      : `accuracy ${(100 * value).toFixed(1)} %`;
  print(io, `${formatNumber(steps)} steps, ${formatCompact(tokens)} tokens, ${parametersOf(result)}: ${quality}`);
  print(
    io,
    `${formatDuration(seconds)} of training, ${formatCompact(rate)} tokens/s${utilizationOf({ flopsPerToken, peakFlops }, rate)}`,
  );
  const best = await bestCheckpoint(join(folder, checkpointsFolder));
  if (best !== undefined) print(io, `best: ${relative(io.cwd, best.path)}`);
  print(io, `metrics: ${relative(io.cwd, join(folder, metricsFile))}`);
  if (config.data.kind === "text") {
    print(io, `write text with: llmeff generate ${relative(io.cwd, folder) || "."} --prompt "…"`);
  }
}
