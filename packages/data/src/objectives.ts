/**
 * Pre-training objectives as data: causal and prefix language modelling, and the denoisers of UL2 (arXiv:2205.05131, §3.1; models.md §5).
 * A mixture is a list of them with weights; what to do with a sequence is in `denoising.ts`.
 */
import { OptionError } from "@llmeff/native/errors";

/** Regular, sequential and extreme denoising in UL2's words. */
export type DenoiserKind = "R" | "S" | "X";
export type ObjectiveKind = "causal" | "prefix" | DenoiserKind;

/** One objective of a mixture. */
export type TextObjective = {
  /** Its share in the mixture, relative to the sum of all. */
  weight: number;
} & (
  | { kind: "causal" }
  /** A split point, uniform in 1..L−1, after which all tokens are predicted; those before see each other. */
  | { kind: "prefix" }
  /** `corruption · L` tokens in spans of `meanSpan` tokens on average are to be told. */
  | { kind: "R" | "X"; meanSpan: number; corruption: number }
  /** The last `corruption · L` tokens, as one span. */
  | { kind: "S"; corruption: number }
);

/** The table of models.md §5. Spans and rates are UL2's; the proportions are those of one open reproduction. */
const ul2: readonly TextObjective[] = [
  { kind: "R", meanSpan: 3, corruption: 0.15, weight: 0.165 },
  { kind: "R", meanSpan: 8, corruption: 0.15, weight: 0.165 },
  { kind: "S", corruption: 0.25, weight: 0.34 },
  { kind: "X", meanSpan: 3, corruption: 0.5, weight: 0.0825 },
  { kind: "X", meanSpan: 8, corruption: 0.5, weight: 0.0825 },
  { kind: "X", meanSpan: 64, corruption: 0.15, weight: 0.0825 },
  { kind: "X", meanSpan: 64, corruption: 0.5, weight: 0.0825 },
];

const shares: Record<DenoiserKind, number> = { R: 0.25 / 2, S: 0.5, X: 0.25 / 4 };

/**
 * Mixtures by name. `ul2`: seven denoisers. `ul2r`: the same for continued training, half of it sequential, a quarter each regular and extreme.
 * `palm2-like`: causal 0.6, prefix 0.2, span corruption 0.2 (PaLM 2 tells that it mixes, not how; this is the mixture of the SALT runs).
 * `causal`: next tokens only.
 */
export const objectivePresets = {
  causal: [{ kind: "causal", weight: 1 }],
  ul2,
  ul2r: ul2.map((objective) => ({ ...objective, weight: shares[objective.kind as DenoiserKind] })),
  "palm2-like": [
    { kind: "causal", weight: 0.6 },
    { kind: "prefix", weight: 0.2 },
    { kind: "R", meanSpan: 3, corruption: 0.15, weight: 0.2 },
  ],
} satisfies Record<string, readonly TextObjective[]>;

export type ObjectivePreset = keyof typeof objectivePresets;

/**
 * The objectives of a preset's name, or those given, checked.
 *
 * @throws {OptionError} naming the objective and the field that is out of its domain
 */
export function resolveObjectives(mixture: ObjectivePreset | readonly TextObjective[]): readonly TextObjective[] {
  const objectives = typeof mixture === "string" ? objectivePresets[mixture] : mixture;
  if (!Array.isArray(objectives) || objectives.length === 0) {
    const names = Object.keys(objectivePresets).join(", ");
    throw new OptionError(
      `[objectives] expected one of ${names}, or a list of objectives; received ${JSON.stringify(mixture)}.`,
    );
  }
  for (const [i, objective] of objectives.entries()) checkObjective(`objectives[${i}]`, objective);
  return objectives;
}

function checkObjective(where: string, objective: TextObjective): void {
  const check = (name: string, value: unknown, valid: boolean, expected: string) => {
    if (!valid)
      throw new OptionError(`[objectives] ${where}.${name} must be ${expected}; received ${JSON.stringify(value)}.`);
  };
  const { kind, weight } = objective;
  check("kind", kind, ["causal", "prefix", "R", "S", "X"].includes(kind), '"causal", "prefix", "R", "S" or "X"');
  check("weight", weight, weight > 0 && Number.isFinite(weight), "a positive number");
  if (kind === "causal" || kind === "prefix") return;
  const { corruption } = objective;
  check("corruption", corruption, corruption > 0 && corruption < 1, "between 0 and 1");
  if (kind === "S") return;
  const { meanSpan } = objective;
  check("meanSpan", meanSpan, meanSpan >= 1 && Number.isFinite(meanSpan), "at least 1");
}

/** The place in a list of weights that `u` in [0, 1) falls on: the smallest whose cumulative share exceeds it. */
export function drawIndex(weights: readonly number[], u: number): number {
  const total = weights.reduce((a, b) => a + b, 0);
  let cumulative = 0;
  for (const [i, weight] of weights.entries()) {
    cumulative += weight;
    if (cumulative > u * total) return i;
  }
  return weights.length - 1; // rounding left none
}
