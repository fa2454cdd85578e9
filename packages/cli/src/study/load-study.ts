/** A study from its file: every arm's complete training config, checked. */
import type { DeviceChoice } from "@llmeff/tensor";
import { metricOf } from "../config/data-schema.js";
import { mergePatch } from "../config/merge.js";
import { check, type Problem, readConfig, refuseProblems } from "../config/read-config.js";
import { type TrainingConfig, trainingSchema } from "../config/training-schema.js";
import { type PartJson, type SampleSettings, studySchema } from "./schema.js";
import { slug } from "./slug.js";

export interface Arm {
  name: string;
  description: string | undefined;
  /** `part/arm` of the names' slugs: the arm's folder, and its name in messages. */
  id: string;
  learningRates: readonly number[];
  /** Complete but for the learning rate, which is the first of the grid. */
  config: TrainingConfig;
}

export type Part = Omit<PartJson, "arms" | "base" | "seeds" | "sweep" | "sample"> & {
  arms: readonly Arm[];
  /** Every arm is trained once with each. */
  seeds: readonly number[];
  sweepSteps: number;
  sweepSeeds: readonly number[];
  sample: SampleSettings | undefined;
};

export interface Study {
  name: string;
  title: string;
  description: string | undefined;
  parts: readonly Part[];
  /** The config file. */
  file: string;
}

export function withLearningRate(config: TrainingConfig, learningRate: number): TrainingConfig {
  return { ...config, optimizer: { ...config.optimizer, learningRate } };
}

/** The study with all its runs on a device. */
export function onDevice(study: Study, device: DeviceChoice): Study {
  const placed = (arm: Arm): Arm => ({ ...arm, config: { ...arm.config, device } });
  return { ...study, parts: study.parts.map((part) => ({ ...part, arms: part.arms.map(placed) })) };
}

/** @throws {UsageError} that lists every problem; {@link IoError} if the file can't be read */
export async function loadStudy(file: string): Promise<Study> {
  const json = await readConfig(file, studySchema);
  const problems: Problem[] = duplicates(json.parts, ["parts"]);
  const parts = json.parts.map((part, i) => loadPart(part, ["parts", i], problems));
  refuseProblems(file, problems);
  return { name: json.name, title: json.title, description: json.description, parts, file };
}

function loadPart(part: PartJson, path: readonly PropertyKey[], problems: Problem[]): Part {
  const { base, arms, seeds, sweep, sample, ...rest } = part;
  const loaded = arms.flatMap((arm, j) => loadArm(part, arm, [...path, "arms", j], path, problems));
  problems.push(...duplicates(arms, [...path, "arms"]), ...unequalGrids(part, path));
  const first = loaded[0]?.config;
  if (first !== undefined && metricOf(first.data) !== part.metric) {
    problems.push({
      path: [...path, "metric"],
      message: `${first.data.kind} data are measured by "${metricOf(first.data)}"; received "${part.metric}".`,
    });
  }
  if (seeds !== undefined && "seed" in base) {
    problems.push({ path: [...path, "base", "seed"], message: "the part's seeds are used; remove it." });
  }
  const baseSeed = first?.seed ?? 0;
  return {
    ...rest,
    arms: loaded,
    seeds: seeds ?? [baseSeed],
    sweepSteps: sweep?.steps ?? first?.training.steps ?? 1,
    sweepSeeds: sweep?.seeds ?? [baseSeed],
    sample,
  };
}

/** Merges and checks; a problem is reported where its value stands, in the arm or in the base. */
function loadArm(
  part: PartJson,
  arm: PartJson["arms"][number],
  armPath: readonly PropertyKey[],
  partPath: readonly PropertyKey[],
  problems: Problem[],
): Arm[] {
  const { name, description, learningRates, model = {}, optimizer = {}, data = {} } = arm;
  if ("name" in part.base) {
    problems.push({ path: [...partPath, "base", "name"], message: "arms have names of their own; remove it." });
  }
  for (const [where, owner] of [
    [[...partPath, "base", "optimizer"], part.base.optimizer],
    [[...armPath, "optimizer"], optimizer],
  ] as const) {
    if (typeof owner === "object" && owner !== null && "learningRate" in owner) {
      problems.push({ path: [...where, "learningRate"], message: "the arms' learningRates are used; remove it." });
    }
  }
  const overrides = { model, optimizer, data };
  const merged = mergePatch(mergePatch(part.base, overrides), {
    name: slug(name),
    optimizer: { learningRate: learningRates[0] },
  });
  const result = check(trainingSchema, merged);
  if (result.ok) {
    return [{ name, description, id: `${slug(part.name)}/${slug(name)}`, learningRates, config: result.value }];
  }
  for (const { path, message, unknownKey } of result.problems) {
    const place = unknownKey === undefined ? path : [...path, unknownKey];
    const inArm = place.length > 1 && hasPath(overrides, place);
    problems.push({ path: [...(inArm ? armPath : [...partPath, "base"]), ...path], message });
  }
  return [];
}

/** Whether a value stands there. */
function hasPath(value: unknown, path: readonly PropertyKey[]): boolean {
  let at: unknown = value;
  for (const key of path) {
    if (typeof at !== "object" || at === null || !(key in at)) return false;
    at = (at as Record<PropertyKey, unknown>)[key];
  }
  return true;
}

function duplicates(named: readonly { name: string }[], path: readonly PropertyKey[]): Problem[] {
  return named.flatMap(({ name }, i) =>
    named.findIndex((other) => slug(other.name) === slug(name)) === i
      ? []
      : [{ path: [...path, i, "name"], message: `the name "${name}" is taken; names are folders and must differ.` }],
  );
}

function unequalGrids({ arms }: PartJson, path: readonly PropertyKey[]): Problem[] {
  const size = arms[0]!.learningRates.length;
  return arms.flatMap(({ learningRates }, j) =>
    learningRates.length === size
      ? []
      : [
          {
            path: [...path, "arms", j, "learningRates"],
            message: `expected ${size} learning rates as in the first arm, for a fair search; received ${learningRates.length}.`,
          },
        ],
  );
}
