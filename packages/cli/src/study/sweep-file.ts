/** The results of a sweep, in a file beside the study's config: what was tried, what came out, which rate each arm takes. */
import { existsSync } from "node:fs";
import { basename } from "node:path";
import { z } from "zod";
import { differences, toJson } from "../config/merge.js";
import { readConfig } from "../config/read-config.js";
import type { TrainingConfig } from "../config/training-schema.js";
import { UsageError } from "../errors.js";
import type { Arm, Part, Study } from "./load-study.js";

const runSchema = z.object({
  learningRate: z.number(),
  seed: z.number(),
  /** The metric at the end; null if the run diverged. */
  value: z.number().nullable(),
  standardError: z.number().nullable(),
  /** Where the run may stop at a target: tokens until then, or null. */
  tokensToTarget: z.number().nullable(),
});
export type SweepRun = z.infer<typeof runSchema>;

const armSchema = z.object({
  name: z.string(),
  learningRates: z.array(z.number()),
  /** The rate that the study uses. */
  chosen: z.number(),
  runs: z.array(runSchema),
  /** The training config of the runs, but for name and learning rate. */
  settings: z.record(z.string(), z.unknown()),
});
export type SweptArm = z.infer<typeof armSchema>;

const partSchema = z.object({
  name: z.string(),
  metric: z.enum(["validationLoss", "accuracy"]),
  seeds: z.array(z.number()),
  arms: z.array(armSchema),
});
export type SweptPart = z.infer<typeof partSchema>;

const sweepSchema = z.object({ study: z.string(), rule: z.string(), parts: z.array(partSchema) });
export type SweepResults = z.infer<typeof sweepSchema>;

/** `token-efficiency.json` → `token-efficiency.sweep.json` */
export function sweepPath(studyFile: string): string {
  return `${studyFile.replace(/\.json$/, "")}.sweep.json`;
}

/** What a run of the sweep trains, but for name, learning rate and seed; where it runs and how often checkpoints are kept doesn't matter. */
export function sweepSettings(part: Part, arm: Arm): Record<string, unknown> {
  const { name: _, seed: __, device: ______, ...config } = sweepConfig(part, arm);
  const { learningRate: ___, ...optimizer } = config.optimizer;
  const { checkpointEvery: ____, keepLast: _____, ...training } = config.training;
  return toJson({ ...config, optimizer, training });
}

export function sweepConfig(part: Part, arm: Arm): TrainingConfig {
  return { ...arm.config, training: { ...arm.config.training, steps: part.sweepSteps } };
}

/**
 * The sweep's results for a study.
 *
 * @throws {UsageError} if they are missing or were found with other settings, naming what differs
 */
export async function readSweep(study: Study): Promise<SweepResults> {
  const path = sweepPath(study.file);
  const advice = `Run the sweep: llmeff study ${basename(study.file)} --sweep`;
  if (!existsSync(path)) {
    throw new UsageError(`[study] the arms' learning rates come from ${path}, which doesn't exist. ${advice}`);
  }
  const sweep = await readConfig(path, sweepSchema);
  const stale = study.parts.flatMap((part) => part.arms.flatMap((arm) => staleness(sweep, part, arm)));
  if (stale.length > 0) {
    throw new UsageError(
      `[study] ${path} doesn't fit ${study.file}:\n${[...new Set(stale)].map((line) => `  ${line}`).join("\n")}\n${advice}`,
    );
  }
  return sweep;
}

/** What an arm's sweep was made with that is different now. */
function staleness(sweep: SweepResults, part: Part, arm: Arm): string[] {
  const sweptPart = sweep.parts.find(({ name }) => name === part.name);
  const swept = sweptPart?.arms.find(({ name }) => name === arm.name);
  if (sweptPart === undefined || swept === undefined) return [`${arm.id} was not swept`];
  const changes = differences(
    { ...swept.settings, learningRates: swept.learningRates, seeds: sweptPart.seeds },
    { ...sweepSettings(part, arm), learningRates: arm.learningRates, seeds: part.sweepSeeds },
  );
  const found = changes.map(
    ({ path, a, b }) => `${arm.id}: ${path} was ${JSON.stringify(a) ?? "absent"}, is ${JSON.stringify(b) ?? "absent"}`,
  );
  if (!arm.learningRates.includes(swept.chosen))
    found.push(`${arm.id}: ${swept.chosen} is not among its learningRates`);
  return found;
}

export function chosenRate(sweep: SweepResults, part: Part, arm: Arm): number {
  return sweep.parts.find(({ name }) => name === part.name)!.arms.find(({ name }) => name === arm.name)!.chosen;
}
