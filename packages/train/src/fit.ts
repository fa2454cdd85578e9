/** Whether a checkpoint is one that a run may go on from: with all that decides the numbers of a step as it was. */
import type { HyperSummary } from "@llmeff/optim";
import { FormatError, type Tensor } from "@llmeff/tensor";
import type { Checkpoint } from "./checkpoint.js";
import { LossScaler, type LossScaleState } from "./loss-scale.js";
import type { ResolvedTrainOptions } from "./options.js";

/** The tensors of the model's file in a checkpoint: parameters and what else a step changes. */
export function modelTensors({ params, modelState }: ResolvedTrainOptions): Record<string, Tensor> {
  return { ...params, ...modelState?.tensors };
}

/**
 * Compares parameters, seed, accumulation and the optimizer's hyper-parameters. Learning rates may differ, which can be functions, and so may
 * `steps`, if not fewer than are done. Whether the data fit, their `restore` says; to compare `config` is up to its owner.
 *
 * @throws {FormatError} that lists every difference
 */
export function requireFit(options: ResolvedTrainOptions, { path, params, optimizer, state }: Checkpoint): void {
  const saved = optimizer.meta;
  const own = options.optimizer.stateDict().meta;
  const problems = [
    ...(state.step > options.steps ? [`it is already at step ${state.step}, beyond steps ${options.steps}`] : []),
    ...difference("seed", state.seed, options.seed),
    ...difference("gradientAccumulation", state.gradientAccumulation, options.gradientAccumulation),
    ...lossScaleDifferences(state.lossScale, options.lossScale && new LossScaler(options.lossScale).state),
    ...difference("optimizer", saved.optimizer, own.optimizer),
    ...(saved.optimizer === own.optimizer ? hyperDifferences(saved.hyper, own.hyper) : []),
    ...paramDifferences(params, modelTensors(options)),
  ];
  if (problems.length === 0) return;
  throw new FormatError(
    `[train] ${path} doesn't fit this run: ${problems.join("; ")}. ` +
      "Set these back to go on, or begin a new run in an empty directory, from loadCheckpoint's parameters if you like.",
  );
}

function difference(what: string, was: unknown, is: unknown): string[] {
  const show = (value: unknown) => JSON.stringify(value) ?? "not given";
  return show(was) === show(is) ? [] : [`${what} was ${show(was)}, is ${show(is)}`];
}

/** Where the scale stands is the run's. */
function lossScaleDifferences(saved: LossScaleState | undefined, own: LossScaleState | undefined): string[] {
  if (saved === undefined || own === undefined)
    return difference("lossScale", saved === undefined ? "off" : "on", own === undefined ? "off" : "on");
  const rule = ["growthFactor", "backoffFactor", "growthInterval"] as const;
  return rule.flatMap((name) => difference(`lossScale.${name}`, saved[name], own[name]));
}

/** Parameter by parameter, so that other groups with the same outcome are no difference. */
function hyperDifferences(saved: HyperSummary | undefined, own: HyperSummary | undefined): string[] {
  const ownOf = byParameter(own);
  const changes = new Map<string, string[]>();
  for (const [name, was] of byParameter(saved)) {
    const is = ownOf.get(name) ?? was; // another model: that is told apart
    for (const key of new Set([...Object.keys(was), ...Object.keys(is)])) {
      for (const change of difference(key, was[key], is[key]))
        changes.set(change, [...(changes.get(change) ?? []), name]);
    }
  }
  return [
    ...difference("maxGradNorm", saved?.maxGradNorm, own?.maxGradNorm),
    ...difference("decay", saved?.decay, own?.decay),
    ...Array.from(changes, ([change, [first, ...others]]) => {
      const more = others.length > 0 ? ` and ${others.length} more` : "";
      return `${change} (of "${first}"${more})`;
    }),
  ];
}

function byParameter(hyper: HyperSummary | undefined) {
  const groups = hyper?.groups ?? [];
  return new Map(
    groups.flatMap(({ params, ...values }) => (params as string[]).map((name) => [name, values] as const)),
  );
}

function paramDifferences(saved: Record<string, Tensor>, own: Record<string, Tensor>): string[] {
  const describe = ({ dtype, shape }: Tensor) => `${dtype} [${shape.join(", ")}]`;
  return [
    ...Object.entries(own).flatMap(([name, param]) => {
      const other = saved[name];
      if (other === undefined) return [`"${name}" is missing`];
      const [was, is] = [describe(other), describe(param)];
      return was === is ? [] : [`"${name}" was ${was}, is ${is}`];
    }),
    ...Object.keys(saved).flatMap((name) => (name in own ? [] : [`"${name}" is not in the model`])),
  ];
}
