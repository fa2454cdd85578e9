/** An optimizer and its schedule from their config. */
import {
  Adafactor,
  Adagrad,
  AdamW,
  constant,
  cosine,
  inverseSqrt,
  Lamb,
  Lion,
  linear,
  Muon,
  matricesTo,
  NAdamW,
  type Optimizer,
  PsgdKron,
  RfdSon,
  RMSprop,
  type Route,
  type Schedule,
  SGD,
  Shampoo,
  Sketchy,
  SM3,
  Soap,
  Sonew,
  warmup,
  wsd,
} from "@llmeff/optim";
import type { Tensor } from "@llmeff/tensor";
import type { OptimizerConfig, RuleKind } from "../config/optimizer-schema.js";
import { defined } from "./defined.js";

type Made = ReturnType<Route<Tensor>["optimizer"]>;

/** The schema has checked names and types of the options; each class checks their values. */
const classes: Record<RuleKind, new (params: Record<string, Tensor>, options: Record<string, unknown>) => Made> = {
  adamw: AdamW,
  sonew: Sonew,
  sgd: SGD,
  adagrad: Adagrad,
  rmsprop: RMSprop,
  nadamw: NAdamW,
  lion: Lion,
  lamb: Lamb,
  adafactor: Adafactor,
  sm3: SM3,
  shampoo: Shampoo,
  sketchy: Sketchy,
  muon: Muon,
  soap: Soap,
  psgdKron: PsgdKron,
  rfdSon: RfdSon,
};

/** @param scales - what the learning rate of each parameter is multiplied by; default 1 */
export function buildOptimizer(
  params: Record<string, Tensor>,
  config: OptimizerConfig,
  totalSteps: number,
  scales: Readonly<Record<string, number>> = {},
): Optimizer {
  const { kind, learningRate, schedule, maxGradNorm, adamw, ...hyper } = config;
  const scheduled = (peak: number) => buildSchedule(peak, schedule, totalSteps);
  const guard = defined({ maxGradNorm });
  const options: Record<string, unknown> = { ...defined(hyper), learningRate: scheduled(learningRate) };
  if ("adamLearningRate" in hyper && hyper.adamLearningRate !== undefined)
    options.adamLearningRate = scheduled(hyper.adamLearningRate);
  const groups = scaledGroups(scales, (scale) => scheduled(scale * learningRate));
  if (adamw === undefined)
    return new classes[kind](params, { ...options, ...guard, ...(groups.length > 0 && { groups }) });
  const { learningRate: peak, ...rest } = adamw;
  return matricesTo(params, (matrices) => new classes[kind](matrices, options), {
    adamw: { ...defined(rest), learningRate: scheduled(peak) },
    ...guard,
  });
}

/** A group for each scale but 1, with a schedule of its own. */
function scaledGroups(scales: Readonly<Record<string, number>>, rate: (scale: number) => Schedule) {
  const values = new Set(Object.values(scales).filter((scale) => scale !== 1));
  return Array.from(values, (scale) => ({
    params: Object.keys(scales).filter((name) => scales[name] === scale),
    learningRate: rate(scale),
  }));
}

function buildSchedule(peak: number, schedule: OptimizerConfig["schedule"], totalSteps: number): Schedule {
  const { kind, ...options } = schedule ?? { kind: "constant" as const };
  if (kind === "rsqrt") return inverseSqrt(peak, options.warmupSteps);
  if (kind === "constant") return warmup(constant(peak), options.warmupSteps ?? 0);
  return { linear, cosine, wsd }[kind](peak, totalSteps, defined(options));
}
