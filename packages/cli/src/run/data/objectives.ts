/** The objectives that a data config names: those of the training, and those that held-out documents are measured by. */
import { resolveObjectives, type TextObjective } from "@llmeff/data";
import type { DataOf, MixtureConfig } from "../../config/data-schema.js";

export interface Objectives {
  training: readonly TextObjective[];
  /** By their names, beside causal language modelling, which always is measured. */
  measured: ReadonlyMap<string, TextObjective>;
}

export function objectivesOf({
  objectives = "causal",
  evaluateObjectives = objectives,
}: Pick<DataOf<"documents">, "objectives" | "evaluateObjectives">): Objectives {
  const others = mixtureOf(evaluateObjectives).filter(({ kind }) => kind !== "causal");
  return {
    training: mixtureOf(objectives),
    measured: new Map(others.map((objective) => [objectiveName(objective), { ...objective, weight: 1 }])),
  };
}

function mixtureOf(mixture: MixtureConfig): readonly TextObjective[] {
  if (typeof mixture === "string") return resolveObjectives(mixture);
  return resolveObjectives(mixture.map(({ weight = 1, ...objective }) => ({ ...objective, weight })));
}

/** `causal`, `prefix`, `S-0.25`, `R-3-0.15`: kind, mean span and share of what is hidden. */
export function objectiveName(objective: TextObjective): string {
  const { kind } = objective;
  if (kind === "causal" || kind === "prefix") return kind;
  return [kind, ...(kind === "S" ? [] : [objective.meanSpan]), objective.corruption].join("-");
}
