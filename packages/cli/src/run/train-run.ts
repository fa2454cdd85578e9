/** One training run from its config: the loop with its files and its progress line. */
import { join } from "node:path";
import { createProgress, formatNumber, type Progress, type ProgressStatus } from "@llmeff/report";
import { latestCheckpoint, type StepEvent, type TrainEvent, train } from "@llmeff/train";
import { lossUnit, type TrainingConfig } from "../config/training-schema.js";
import type { Io } from "../io.js";
import { errorName, evaluateRun, reaches } from "./evaluation.js";
import type { OpenedData } from "./open-data.js";
import { openRun } from "./open-run.js";
import { Recorder } from "./recorder.js";
import { runConfig } from "./run-config.js";

export const checkpointsFolder = "checkpoints";

export interface TrainRunOptions {
  config: TrainingConfig;
  /** Paths in the config are relative to this file. */
  configFile: string;
  /** Where metrics and checkpoints go; nothing is written without it. */
  folder?: string;
  /** Go on from the newest checkpoint in the folder, if there is one. */
  resume?: boolean;
  io: Io;
  signal: AbortSignal;
  label?: string;
  /** A line for every evaluation and every step that was passed over; default false. */
  verbose?: boolean;
}

/** How a run ended. */
export interface RunResult {
  parameters: number;
  /** Those that a token meets: fewer in mixtures of experts. */
  activeParameters: number;
  steps: number;
  tokens: number;
  /** Operations of a step per token, by the usual count. */
  flopsPerToken: number;
  /** Operations that the device can do in a second, if anybody has said. */
  peakFlops?: number;
  /** The last evaluation. */
  value: number;
  standardError: number;
  /** Tokens at the first evaluation that reached `stopAt`. */
  tokensToStop: number | null;
  /** Time in steps, without evaluations and checkpoints. */
  seconds: number;
}

/** The defaults of a run's schedule of evaluations and checkpoints. */
function pacing({ training }: TrainingConfig) {
  const tenth = Math.max(1, Math.ceil(training.steps / 10));
  const { evaluateEvery = tenth, checkpointEvery = tenth, evaluateWindows = 100, keepLast = 2 } = training;
  return { evaluateEvery, checkpointEvery, evaluateWindows, keepLast };
}

/**
 * Trains to the end of the config, or to `stopAt`.
 *
 * @throws {InterruptedError} after the current step, with a checkpoint written, if the signal aborts
 */
export async function trainRun(options: TrainRunOptions): Promise<RunResult> {
  const { config, configFile } = options;
  using opened = await openRun(config, { configFile, evaluateWindows: pacing(config).evaluateWindows });
  const { data, model, evaluated, flopsPerToken, peakFlops } = opened;
  const run = new RunView(options, data);
  try {
    if (!options.resume) await run.open(0);
    for await (const event of train({
      ...opened.loop,
      ...loopOptions(options, data),
      evaluate: ({ signal }) => evaluateRun(model, evaluated, data, signal),
    })) {
      await run.handle(event);
    }
    return {
      ...run.outcome(),
      parameters: model.parameterCount,
      activeParameters: model.activeParameterCount,
      flopsPerToken,
      ...(peakFlops !== undefined && { peakFlops }),
    };
  } finally {
    await run.close();
  }
}

function loopOptions({ config, folder, resume = false, signal }: TrainRunOptions, data: OpenedData) {
  const { steps, stopAt, keepBest = false } = config.training;
  const { evaluateEvery, checkpointEvery, keepLast } = pacing(config);
  const files = folder !== undefined && {
    checkpoint: {
      ...{ directory: join(folder, checkpointsFolder), every: checkpointEvery, keepLast },
      ...(keepBest && { best: { metric: data.metric, highest: data.metric === "accuracy" } }),
    },
    resume,
    config: runConfig(config, data),
  };
  const stop = stopAt && {
    stopWhen: (metrics: Readonly<Record<string, number>>) =>
      reaches(stopAt.metric, metrics[stopAt.metric] ?? Number.NaN, stopAt.value),
  };
  return {
    steps,
    evaluateEvery,
    signal,
    ...files,
    ...stop,
  };
}

/** Follows the events of a run: files, progress line, and the numbers it ends with. */
class RunView {
  readonly #options: TrainRunOptions;
  readonly #data: OpenedData;
  readonly #tokensPerStep: number;
  #recorder: Recorder | undefined;
  #progress: Progress | undefined;
  #startTokens = 0;
  #status: ProgressStatus = {};
  #steps = 0;
  #seconds = 0;
  #value = Number.NaN;
  #standardError = Number.NaN;
  #reached = false;

  constructor(options: TrainRunOptions, data: OpenedData) {
    this.#options = options;
    this.#data = data;
    const { gradientAccumulation = 1 } = options.config.training;
    this.#tokensPerStep = gradientAccumulation * options.config.data.batchSize * data.seqLen;
  }

  async handle(event: TrainEvent): Promise<void> {
    if (this.#progress === undefined) await this.open(event.type === "resumed" ? event.step : 0);
    const progress = this.#progress!;
    const { training } = this.#options.config;
    if (event.type === "step") {
      this.#steps = event.step;
      this.#seconds = event.seconds;
      this.#recorder?.step(event);
      this.#status = { tokens: event.tokens - this.#startTokens, loss: event.loss };
      if (this.#options.verbose && event.skipped) progress.message(skippedText(event));
      // The last step's line comes with its evaluation.
      if (event.step < training.steps) progress.update(event.step, this.#status);
      const due = event.step % pacing(this.#options.config).checkpointEvery === 0 || event.step === training.steps;
      if (due || this.#options.signal.aborted) await this.#recorder?.flush();
    } else if (event.type === "evaluation") {
      this.#evaluated(event.metrics);
      this.#recorder?.evaluation(event);
      await this.#recorder?.flush();
      progress.update(event.step, { ...this.#status, note: this.#standing() });
      if (this.#options.verbose) progress.message(`step ${formatNumber(event.step)}: ${this.#standing()}`);
    } else if (event.type === "resumed") {
      await this.#restore();
      progress.message(resumedText(event));
    }
  }

  outcome() {
    const tokens = this.#steps * this.#tokensPerStep;
    return {
      steps: this.#steps,
      tokens,
      value: this.#value,
      standardError: this.#standardError,
      tokensToStop: this.#reached ? tokens : null,
      seconds: this.#seconds,
    };
  }

  async close(): Promise<void> {
    this.#progress?.finish();
    await this.#recorder?.close();
  }

  async open(step: number): Promise<void> {
    const { folder, io, label = "train", config } = this.#options;
    this.#steps = step;
    this.#startTokens = step * this.#tokensPerStep;
    if (folder !== undefined) this.#recorder = await Recorder.open(folder, step, this.#tokensPerStep);
    this.#progress = createProgress({
      stream: io.stderr,
      total: config.training.steps,
      start: step,
      label,
      env: io.env,
    });
  }

  /** What the run knew at its checkpoint; there may be nothing left to do. */
  async #restore(): Promise<void> {
    const found = await latestCheckpoint(join(this.#options.folder!, checkpointsFolder));
    if (found === undefined) return;
    const { seconds, evaluation } = found.state;
    this.#seconds = seconds;
    if (evaluation === null) return;
    const entries = Object.entries(evaluation.metrics).map(([name, value]) => [name, value ?? Number.NaN] as const);
    this.#evaluated(Object.fromEntries(entries));
  }

  #evaluated(metrics: Readonly<Record<string, number>>): void {
    const { metric } = this.#data;
    const { stopAt } = this.#options.config.training;
    this.#value = metrics[metric] ?? Number.NaN;
    this.#standardError = metrics[errorName(metric)] ?? Number.NaN;
    this.#reached = stopAt !== undefined && reaches(metric, this.#value, stopAt.value);
  }

  #standing(): string {
    return this.#data.metric === "accuracy"
      ? `accuracy ${(100 * this.#value).toFixed(1)} %`
      : `validation ${this.#value.toFixed(3)} ${lossUnit(this.#options.config.data)}`;
  }
}

function skippedText({ step, gradNorm, lossScale }: StepEvent): string {
  const scaled = lossScale === undefined ? "" : ` with the loss times ${formatNumber(lossScale)}`;
  return `step ${formatNumber(step)} passed over: the gradients' norm is ${gradNorm}${scaled}`;
}

function resumedText(event: Extract<TrainEvent, { type: "resumed" }>): string {
  const skipped = event.skipped.map(({ path, reason }) => `passed over ${path}: ${reason}`);
  return [...skipped, `going on from ${event.path}`].join("\n");
}
