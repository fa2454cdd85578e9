/** Every task with all its variants: what tests and measurements go through. */
import type { Sample } from "../sample.js";
import { type GeneratorName, generateSample, type TaskParams } from "../tasks/generate.js";
import { NIAH_VARIANTS, type NiahVariant } from "../tasks/niah/niah.js";
import type { SampleOptions } from "../tasks/sample-options.js";

export interface Variant {
  name: string;
  /** Budgets below it, in bytes, are too small for what must be in the prompt. */
  leastBytes: number;
  generate: (options: SampleOptions) => Sample;
}

function variant<Name extends GeneratorName>(
  task: Name,
  params: TaskParams[Name],
  leastBytes = 4096,
  label = JSON.stringify(params),
): Variant {
  return { name: `${task} ${label}`, leastBytes, generate: (options) => generateSample(task, options, params) };
}

const niahVariants = (Object.keys(NIAH_VARIANTS) as NiahVariant[]).map((name) =>
  variant("niah", { variant: name }, name === "niah_100" ? 16_384 : 4096),
);

export const EVERY_TASK: readonly Variant[] = [
  ...([1, 5, 20] as const).map((complexity) => variant("latent_list", { complexity })),
  variant("latent_list", { complexity: 5, relevance: "view", placement: "interspersed" }),
  variant("latent_list", { complexity: 5, placement: { adjacent: 0.5 } }),
  variant("mrcr", {}, 16_384),
  variant("mrcr", { needles: 4, keyDepth: 3, hashLength: 10 }, 16_384),
  variant("mrcr", { needles: 8, keyDepth: 3, layout: "flat" }, 32_768),
  variant("mrcr", { needles: 2, queriesPerTranscript: 4, fewShot: true }, 32_768),
  variant("idk", {}),
  variant("idk", { filler: "prose", depth: 0.5 }),
  variant("idk", { filler: "stories", depth: 1 }),
  ...niahVariants,
  variant("niah", { variant: "niah_mv", haystack: "noise", placement: { adjacent: 0.25 } }),
  variant("variable_tracking", {}),
  variant("variable_tracking", { chains: 1, reassign: 0 }),
  variant("variable_tracking", { chains: 6, hops: 3, reassign: 8, haystack: "prose" }, 8192),
  variant("common_words", {}, 16_384),
  variant("common_words", { common: 5, commonCount: 12, otherCount: 10 }, 8192),
  variant("frequent_words", {}),
  variant("frequent_words", { alpha: 1.5 }),
  variant("doc_qa", {}),
  variant("doc_qa", { hops: 2 }),
  variant("doc_qa", { literal: true }),
  variant("doc_qa", { literal: false }),
  variant("conlang", {}, 32_768),
  variant("conlang", { condition: "half", direction: "x-en", compose: 3 }, 32_768),
  variant("conlang", { condition: "none" }),
  variant("conlang", { condition: "rules-only", lexemes: 200 }, 16_384),
  variant("conlang", { condition: "examples-only", sentencesPerBook: 3 }, 16_384),
  variant("icl_scaling", { pairs: 8 }),
];
