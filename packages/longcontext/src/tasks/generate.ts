/** One door to all generators: a task's name and its parameters. */
import { OptionError } from "@llmeff/native/errors";
import type { Sample } from "../sample.js";
import { type ConlangParams, conlang } from "./conlang/conlang.js";
import { type IclParams, iclSample } from "./conlang/icl-scaling.js";
import { type CommonWordsParams, commonWords } from "./counting/common-words.js";
import { type FrequentWordsParams, frequentWords } from "./counting/frequent-words.js";
import { type DocQaParams, docQa } from "./doc-qa/doc-qa.js";
import { type IdkParams, idk } from "./idk/idk.js";
import { type LatentListParams, latentList } from "./latent-list/latent-list.js";
import { type MrcrParams, mrcr } from "./mrcr/mrcr.js";
import { type NiahParams, niah } from "./niah/niah.js";
import { requireInteger, type SampleOptions } from "./sample-options.js";
import { type VariableTrackingParams, variableTracking } from "./variable-tracking/variable-tracking.js";

/** Parameters of every generator; `icl_scaling` writes samples of the task `conlang`. */
export interface TaskParams {
  latent_list: LatentListParams;
  mrcr: MrcrParams;
  idk: IdkParams;
  niah: NiahParams;
  variable_tracking: VariableTrackingParams;
  common_words: CommonWordsParams;
  frequent_words: FrequentWordsParams;
  doc_qa: DocQaParams;
  conlang: ConlangParams;
  icl_scaling: IclParams;
}

export type GeneratorName = keyof TaskParams;

const GENERATORS: { [Name in GeneratorName]: (options: SampleOptions, params: TaskParams[Name]) => Sample } = {
  latent_list: latentList,
  mrcr,
  idk,
  niah,
  variable_tracking: variableTracking,
  common_words: commonWords,
  frequent_words: frequentWords,
  doc_qa: docQa,
  conlang,
  icl_scaling: iclSample,
};

export const GENERATOR_NAMES = Object.keys(GENERATORS) as GeneratorName[];

/**
 * A sample of any task.
 *
 * @example
 * const sample = generateSample("niah", { seed: 1, index: 0, maxTokens: 32768 }, { variant: "niah_mk1" });
 */
export function generateSample<Name extends GeneratorName>(
  task: Name,
  options: SampleOptions,
  params: TaskParams[Name],
): Sample {
  const generator = GENERATORS[task];
  if (generator === undefined) {
    throw new OptionError(`[generateSample] task must be one of ${GENERATOR_NAMES.join(", ")}; received ${task}.`);
  }
  return generator(options, params);
}

export interface SampleSet<Name extends GeneratorName = GeneratorName>
  extends Omit<SampleOptions, "index" | "maxTokens"> {
  task: Name;
  params: TaskParams[Name];
  /** Budgets in tokens; every length has the same relevant items. */
  lengths: readonly number[];
  /** Samples for each length. */
  count: number;
  /** Number of the first; default 0. */
  first?: number;
}

/** The samples of a set one after another, never more than one in memory: all of a length, then the next length. */
export function* generateSet<Name extends GeneratorName>(set: SampleSet<Name>): Generator<Sample> {
  const { task, params, lengths, count, first = 0, ...options } = set;
  requireInteger("generateSet", "count", count, 1, 2 ** 31);
  for (const maxTokens of lengths) {
    for (let index = first; index < first + count; index++)
      yield generateSample(task, { ...options, index, maxTokens }, params);
  }
}
