/** An optimizer and its schedule from their config. */
import { AdamW, constant, cosine, linear, type Optimizer, type Schedule, Sonew, warmup, wsd } from "@llmeff/optim";
import type { Tensor } from "@llmeff/tensor";
import type { TrainingConfig } from "../config/training-schema.js";
import { defined } from "./defined.js";

type OptimizerConfig = TrainingConfig["optimizer"];

export function buildOptimizer(params: Record<string, Tensor>, config: OptimizerConfig, totalSteps: number): Optimizer {
  const { learningRate, schedule, ...rest } = config;
  const rate = buildSchedule(learningRate, schedule, totalSteps);
  if (rest.kind === "adamw") {
    const { kind: _, ...options } = rest;
    return new AdamW(params, { learningRate: rate, ...defined(options) });
  }
  const { kind: _, ...options } = rest;
  return new Sonew(params, { learningRate: rate, ...defined(options) });
}

function buildSchedule(peak: number, schedule: OptimizerConfig["schedule"], totalSteps: number): Schedule {
  const { kind, ...options } = schedule ?? { kind: "constant" as const };
  if (kind === "constant") return warmup(constant(peak), options.warmupSteps ?? 0);
  return { linear, cosine, wsd }[kind](peak, totalSteps, defined(options));
}
