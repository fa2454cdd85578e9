/** Every task with all its variants: what generators, checkers and models are tried on. */
import type { Sample } from "../sample.js";
import { conlang } from "../tasks/conlang/conlang.js";
import { iclSample } from "../tasks/conlang/icl-scaling.js";
import { commonWords } from "../tasks/counting/common-words.js";
import { frequentWords } from "../tasks/counting/frequent-words.js";
import { docQa } from "../tasks/doc-qa/doc-qa.js";
import { idk } from "../tasks/idk/idk.js";
import { latentList } from "../tasks/latent-list/latent-list.js";
import { mrcr } from "../tasks/mrcr/mrcr.js";
import { NIAH_VARIANTS, type NiahVariant, niah } from "../tasks/niah/niah.js";
import type { SampleOptions } from "../tasks/sample-options.js";
import { variableTracking } from "../tasks/variable-tracking/variable-tracking.js";

export interface Variant {
  name: string;
  /** Budgets below it, in bytes, may be too small for what must be in the prompt. */
  leastBytes: number;
  generate: (options: SampleOptions) => Sample;
}

function variant<Params>(
  name: string,
  generate: (options: SampleOptions, params: Params) => Sample,
  params: Params,
  leastBytes = 4096,
): Variant {
  return {
    name: `${name} ${JSON.stringify(params)}`,
    leastBytes,
    generate: (options) => generate(options, params),
  };
}

const niahVariants = (Object.keys(NIAH_VARIANTS) as NiahVariant[]).map((name) =>
  variant("niah", niah, { variant: name }, name === "niah_100" ? 16_384 : 4096),
);

export const EVERY_TASK: readonly Variant[] = [
  ...([1, 5, 20] as const).map((complexity) => variant("latent_list", latentList, { complexity })),
  variant("latent_list", latentList, { complexity: 5, relevance: "view", placement: "interspersed" }),
  variant("latent_list", latentList, { complexity: 5, placement: { adjacent: 0.5 } }),
  variant("mrcr", mrcr, {}, 16_384),
  variant("mrcr", mrcr, { needles: 4, keyDepth: 3, hashLength: 10 }, 16_384),
  variant("mrcr", mrcr, { needles: 8, keyDepth: 3, layout: "flat" }, 32_768),
  variant("mrcr", mrcr, { needles: 2, queriesPerTranscript: 4, fewShot: true }, 32_768),
  variant("idk", idk, {}),
  variant("idk", idk, { filler: "prose", depth: 0.5 }),
  variant("idk", idk, { filler: "stories", depth: 1 }),
  ...niahVariants,
  variant("niah", niah, { variant: "niah_mv", haystack: "noise", placement: { adjacent: 0.25 } }),
  variant("variable_tracking", variableTracking, {}),
  variant("variable_tracking", variableTracking, { chains: 1, reassign: 0 }),
  variant("variable_tracking", variableTracking, { chains: 6, hops: 3, reassign: 8, haystack: "prose" }, 8192),
  variant("common_words", commonWords, {}, 16_384),
  variant("common_words", commonWords, { common: 5, commonCount: 12, otherCount: 10 }, 8192),
  variant("frequent_words", frequentWords, {}),
  variant("frequent_words", frequentWords, { alpha: 1.5 }),
  variant("doc_qa", docQa, {}),
  variant("doc_qa", docQa, { hops: 2 }),
  variant("doc_qa", docQa, { literal: true }),
  variant("doc_qa", docQa, { literal: false }),
  variant("conlang", conlang, {}, 32_768),
  variant("conlang", conlang, { condition: "half", direction: "x-en", compose: 3 }, 32_768),
  variant("conlang", conlang, { condition: "none" }),
  variant("conlang", conlang, { condition: "rules-only", lexemes: 200 }, 16_384),
  variant("conlang", conlang, { condition: "examples-only", sentencesPerBook: 3 }, 16_384),
  variant("icl_scaling", iclSample, { pairs: 8 }),
];
