/** The training loop. */
import type { Batch } from "@llmeff/data";
import { NonFiniteError, OptionError, sync } from "@llmeff/tensor";
import { CapturedGradients } from "./captured-gradients.js";
import { listSteps, removeTemporaries } from "./checkpoint.js";
import type { EvaluationEvent, StepEvent, TrainEvent } from "./events.js";
import { lossAndGradients } from "./gradients.js";
import { type ResolvedTrainOptions, resolveOptions, type TrainOptions } from "./options.js";
import { checkpointRun, freshRun, lastCheckpoint, type RunState, resumeRun } from "./run-state.js";

/**
 * Trains by steps of the optimizer, telling each step, evaluation and checkpoint as an event.
 *
 * After a step come, where due, its evaluation and then its checkpoint. The work goes on only while events are asked for; leaving
 * the `for await` ends it after the current event without a checkpoint. When `signal` aborts, the current step is
 * finished, its checkpoint written (if there is a directory), and the signal's reason thrown.
 *
 * A run with `resume: true` goes on bit by bit as if it had not been interrupted: same parameters, same events but for times.
 *
 * With float16 parameters, losses are scaled so that gradients don't vanish; see `TrainOptions.lossScale`.
 *
 * @throws {OptionError} at once, for an option outside its domain
 * @throws {NonFiniteError} while running, if a loss is not finite: before the step changes any parameter, and the last checkpoint stays
 * @throws {IoError} while running, if a checkpoint can't be written; earlier ones stay
 * @throws {FormatError} on resume, if no checkpoint is valid, or it doesn't fit: listing what differs
 *
 * @example
 * for await (const event of train({ params, objective, optimizer, data, steps: 1000 })) {
 *   if (event.type === "step") console.log(event.step, event.loss);
 * }
 */
export function train(options: TrainOptions): AsyncGenerator<TrainEvent, void, undefined> {
  return events(resolveOptions(options));
}

async function* events(options: ResolvedTrainOptions): AsyncGenerator<TrainEvent, void, undefined> {
  const { params, objective, seed } = options;
  const captured = options.captureStep ? new CapturedGradients(objective, params, seed) : undefined;
  try {
    yield* eventsOf(options, captured);
  } finally {
    captured?.dispose();
  }
}

async function* eventsOf(
  options: ResolvedTrainOptions,
  captured: CapturedGradients | undefined,
): AsyncGenerator<TrainEvent, void, undefined> {
  const { steps, checkpoint, signal } = options;
  if (checkpoint) await removeTemporaries(checkpoint.directory);
  const resumed = options.resume ? await resumeRun(options) : undefined;
  if (checkpoint && !resumed) await requireNoCheckpoints(checkpoint.directory);
  const run = resumed?.run ?? freshRun(options);
  if (resumed) {
    const { step, path, skipped } = resumed.found;
    yield { type: "resumed", step, path, skipped };
  }
  // Each round begins where a checkpoint may have been taken, so that a resumed run does what was still due.
  while (true) {
    if (evaluationIsDue(options, run)) {
      const event = await evaluateStep(options, run);
      if (event) yield event;
    }
    const done = run.step >= steps || stops(options, run);
    const before = run.best;
    const best = isBest(options, run);
    const due = done || best || signal?.aborted || (checkpoint && run.step % checkpoint.every === 0);
    if (checkpoint && due && run.step > 0 && run.checkpoint?.step !== run.step) {
      const path = await checkpointRun(options, run);
      run.checkpoint = { step: run.step, path };
      yield { type: "checkpoint", step: run.step, path };
    } else if (checkpoint && best && run.best !== before) {
      // The checkpoint of an interrupted run was written before its evaluation, which has now found it the best.
      await checkpointRun(options, run);
    }
    if (done) return;
    if (signal?.aborted) throw signal.reason;
    const event = await trainStep(options, run, captured);
    if (event) yield event;
  }
}

/** One step. @returns undefined if the signal aborted while its data were fetched: the step didn't happen */
async function trainStep(
  options: ResolvedTrainOptions,
  run: RunState,
  captured: CapturedGradients | undefined,
): Promise<StepEvent | undefined> {
  const { params, objective, optimizer, data, gradientAccumulation, clock } = options;
  const begin = clock();
  const batches: Batch[] = [];
  try {
    while (batches.length < gradientAccumulation) batches.push(await data.next());
  } catch (error) {
    if (options.signal?.aborted) return undefined;
    throw error;
  }
  const step = run.step + 1;
  const { learningRate } = optimizer; // a schedule may throw: before there are gradients to free
  const lossScale = run.lossScaler?.scale;
  const { loss, grads, norm, collected, release } = captured
    ? await captured.compute(batches, step, lossScale)
    : await lossAndGradients(objective, params, batches, { seed: options.seed, step, lossScale });
  const overflowed = norm !== undefined && !Number.isFinite(norm);
  let gradNorm = norm;
  try {
    if (!Number.isFinite(loss)) {
      throw new NonFiniteError(
        `[train] loss is ${loss} at step ${step}; the parameters are those after step ${run.step}, and ${lastCheckpoint(run)}. ` +
          "Lower the learning rate, clip the gradients (maxGradNorm), or look at the data of this step.",
      );
    }
    if (!overflowed) {
      optimizer.step(grads, { gradNorm: norm });
      gradNorm = await optimizer.gradNorm();
      if (!isSkipped(gradNorm)) options.modelState?.update(collected, step);
    }
  } finally {
    release();
  }
  await sync();
  const skipped = isSkipped(gradNorm);
  const seconds = Math.max(0, clock() - begin) / 1000;
  const tokens = batches.reduce((sum, batch) => sum + batch.tokens.length, 0);
  run.step = step;
  run.tokens += tokens;
  run.seconds += seconds;
  run.data = data.state();
  // While the scale can fall, an overflow is part of finding it.
  if (!skipped) run.skippedSteps = 0;
  else if (!overflowed || !run.lossScaler!.canFall) run.skippedSteps++;
  run.lossScaler?.update(overflowed);
  if (run.skippedSteps >= options.maxSkippedSteps) {
    throw new NonFiniteError(
      `[train] the gradients' norm is ${gradNorm} at step ${step}, the ${ordinal(run.skippedSteps)} such step in a row; ` +
        `these steps changed no parameter, and ${lastCheckpoint(run)}. Lower the learning rate, or look at the data.`,
    );
  }
  return {
    type: "step",
    step,
    loss,
    learningRate,
    ...(gradNorm === undefined ? {} : { gradNorm }),
    skipped,
    ...(lossScale === undefined ? {} : { lossScale }),
    tokens: run.tokens,
    tokensPerSecond: seconds > 0 ? tokens / seconds : Number.POSITIVE_INFINITY,
    ...(options.utilization && seconds > 0 && { mfu: mfuOf(options.utilization, tokens / seconds) }),
    seconds: run.seconds,
  };
}

/** Whether the step has left everything as it was. */
function isSkipped(gradNorm: number | undefined): boolean {
  return gradNorm !== undefined && !Number.isFinite(gradNorm);
}

function mfuOf({ flopsPerToken, peakFlops }: { flopsPerToken: number; peakFlops: number }, tokensPerSecond: number) {
  return (tokensPerSecond * flopsPerToken) / peakFlops;
}

function evaluationIsDue(
  { evaluate, evaluateEvery, steps }: ResolvedTrainOptions,
  { step, evaluation }: RunState,
): boolean {
  if (evaluate === undefined || step === 0 || evaluation?.step === step) return false;
  return step % evaluateEvery === 0 || step >= steps;
}

/** @returns undefined if the signal aborted meanwhile: the evaluation is then made when the run is resumed */
async function evaluateStep(options: ResolvedTrainOptions, run: RunState): Promise<EvaluationEvent | undefined> {
  const { params, signal } = options;
  const { step } = run;
  let metrics: Record<string, number>;
  try {
    metrics = await options.evaluate!({ step, params, signal });
  } catch (error) {
    if (signal?.aborted) return undefined;
    throw error;
  }
  const wrong = Object.entries(metrics ?? {}).find(([, value]) => typeof value !== "number");
  if (typeof metrics !== "object" || metrics === null || wrong) {
    throw new OptionError(
      `[train] evaluate must return numbers by name; received ${wrong ? `${typeof wrong[1]} as "${wrong[0]}"` : typeof metrics}.`,
    );
  }
  const judged = options.checkpoint?.best?.metric;
  if (judged !== undefined && metrics[judged] === undefined) {
    const names = Object.keys(metrics).join(", ");
    throw new OptionError(
      `[train] checkpoint.best.metric is "${judged}", which evaluate didn't return; it has ${names}.`,
    );
  }
  const stored = Object.entries(metrics).map(([name, value]) => [name, Number.isFinite(value) ? value : null] as const);
  run.evaluation = { step, metrics: Object.fromEntries(stored) };
  return { type: "evaluation", step, metrics };
}

/** Whether the evaluation of this step is the best so far, which it then is noted to be. */
function isBest({ checkpoint }: ResolvedTrainOptions, run: RunState): boolean {
  const { step, evaluation, best } = run;
  if (checkpoint?.best === undefined || evaluation?.step !== step) return false;
  const { metric, highest = false } = checkpoint.best;
  // What the run was resumed with may have been measured before it was judged by this metric.
  const value = evaluation.metrics[metric] ?? null;
  if (value === null || (best !== null && !(highest ? value > best.value : value < best.value)))
    return best?.step === step;
  run.best = { step, value, metric, highest };
  return true;
}

/** Whether the last evaluation, if it is of this step, says that this is enough. */
function stops({ stopWhen }: ResolvedTrainOptions, { step, evaluation }: RunState): boolean {
  if (stopWhen === undefined || evaluation?.step !== step) return false;
  const metrics = Object.entries(evaluation.metrics).map(([name, value]) => [name, value ?? Number.NaN] as const);
  return stopWhen(Object.fromEntries(metrics));
}

/** A new run among the checkpoints of an old one would make "the newest" mean the old one's. */
async function requireNoCheckpoints(directory: string): Promise<void> {
  const [newest] = await listSteps(directory);
  if (newest !== undefined) {
    throw new OptionError(
      `[train] ${directory} holds checkpoints of another run, up to step ${newest}. Continue it with resume: true, or choose an empty directory.`,
    );
  }
}

function ordinal(n: number): string {
  const suffix = n % 100 >= 11 && n % 100 <= 13 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th");
  return `${n}${suffix}`;
}
