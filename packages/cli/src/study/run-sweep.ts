/** The sweep: every arm at every learning rate of its grid, with every seed. */
import { rm } from "node:fs/promises";
import { relative } from "node:path";
import { NonFiniteError } from "@llmeff/native/errors";
import { formatNumber, renderTextTable, writeFileAtomic } from "@llmeff/report";
import { z } from "zod";
import { formatJson } from "../config/format-json.js";
import { UsageError } from "../errors.js";
import { type Io, note, print } from "../io.js";
import { trainRun } from "../run/train-run.js";
import { choiceRule, chooseRate } from "./choose-rate.js";
import { Ledger } from "./ledger.js";
import { type Arm, type Part, type Study, withLearningRate } from "./load-study.js";
import {
  type SweepResults,
  type SweepRun,
  type SweptArm,
  sweepConfig,
  sweepPath,
  sweepSettings,
} from "./sweep-file.js";
import { sweepTable } from "./tables.js";

const finishedRun = z.object({
  value: z.number().nullable(),
  standardError: z.number().nullable(),
  tokensToTarget: z.number().nullable(),
});
type FinishedRun = z.infer<typeof finishedRun>;

/**
 * Runs what an interrupted sweep of the same study has not yet run, then writes the results beside the config.
 *
 * @param ledgerPath - where the runs already made are kept until the sweep is complete
 */
export async function runSweep(io: Io, study: Study, ledgerPath: string, signal: AbortSignal): Promise<void> {
  const identity = study.parts.map((part) => ({
    ...sweptHead(part),
    arms: part.arms.map((arm) => ({ id: arm.id, rates: arm.learningRates, settings: sweepSettings(part, arm) })),
  }));
  const ledger =
    (await Ledger.unfinished<FinishedRun>(ledgerPath, identity, finishedRun)) ??
    (await Ledger.create<FinishedRun>(ledgerPath, identity));
  if (ledger.size > 0) note(io, `going on with the sweep: finished runs are kept (${ledger.size})`);
  const parts: SweepResults["parts"] = [];
  for (const part of study.parts) {
    const arms: SweptArm[] = [];
    for (const arm of part.arms) arms.push(await sweepArm({ io, study, part, arm, ledger, signal }));
    parts.push({ ...sweptHead(part), arms });
  }
  const results: SweepResults = { study: study.name, rule: choiceRule, parts };
  const file = sweepPath(study.file);
  await writeFileAtomic(file, formatJson(results));
  await rm(ledgerPath, { force: true });
  for (const part of parts) print(io, `\n${renderTextTable(sweepTable(part), { width: io.stdout.columns ?? 120 })}`);
  print(io, `\n${relative(io.cwd, file)} is written; llmeff study uses its learning rates.`);
}

function sweptHead({ name, metric, sweepSeeds }: Part) {
  return { name, metric, seeds: [...sweepSeeds] };
}

interface ArmSweep {
  io: Io;
  study: Study;
  part: Part;
  arm: Arm;
  ledger: Ledger<FinishedRun>;
  signal: AbortSignal;
}

async function sweepArm(sweep: ArmSweep): Promise<SweptArm> {
  const { part, arm, ledger } = sweep;
  const runs: SweepRun[] = [];
  for (const learningRate of arm.learningRates) {
    for (const seed of part.sweepSeeds) {
      const key = `${arm.id} ${learningRate} ${seed}`;
      let run = ledger.get(key);
      if (run === undefined) {
        run = await sweepRun(sweep, learningRate, seed);
        await ledger.put(key, run);
      }
      runs.push({ learningRate, seed, ...run });
    }
  }
  const chosen = chooseRate(runs, part.metric);
  if (chosen === undefined) {
    throw new UsageError(
      `[sweep] ${arm.id} diverged at every learning rate (${arm.learningRates.map((rate) => formatNumber(rate)).join(", ")}). Give it smaller ones.`,
    );
  }
  return { name: arm.name, learningRates: [...arm.learningRates], chosen, runs, settings: sweepSettings(part, arm) };
}

/** One run; nothing of it is kept but its numbers. */
async function sweepRun(
  { io, study, part, arm, signal }: ArmSweep,
  learningRate: number,
  seed: number,
): Promise<FinishedRun> {
  const config = { ...withLearningRate(sweepConfig(part, arm), learningRate), seed };
  try {
    const { value, standardError, tokensToStop } = await trainRun({
      config,
      configFile: study.file,
      io,
      signal,
      label: `${arm.id} at ${learningRate}`,
    });
    return { value: finite(value), standardError: finite(standardError), tokensToTarget: tokensToStop };
  } catch (error) {
    if (!(error instanceof NonFiniteError)) throw error;
    note(io, `${arm.id} at ${learningRate} diverged: ${error.message}`);
    return { value: null, standardError: null, tokensToTarget: null };
  }
}

const finite = (value: number) => (Number.isFinite(value) ? value : null);
