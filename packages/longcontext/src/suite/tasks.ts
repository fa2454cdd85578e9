/** The tasks by the names that the command line knows. */
import { OptionError } from "@llmeff/native/errors";
import type { Sample } from "../sample.js";
import type { TextSource } from "../scribe/text-source.js";
import { CONDITIONS, type Condition } from "../tasks/conlang/book.js";
import { conlang } from "../tasks/conlang/conlang.js";
import { longestIclSample } from "../tasks/conlang/icl-scaling.js";
import { commonWords } from "../tasks/counting/common-words.js";
import { frequentWords } from "../tasks/counting/frequent-words.js";
import { docQa } from "../tasks/doc-qa/doc-qa.js";
import type { Haystack } from "../tasks/haystack.js";
import { idk } from "../tasks/idk/idk.js";
import { latentList } from "../tasks/latent-list/latent-list.js";
import { mrcr } from "../tasks/mrcr/mrcr.js";
import { needleDepths } from "../tasks/niah/grid.js";
import { NIAH_VARIANTS, type NiahParams, type NiahVariant, niah } from "../tasks/niah/niah.js";
import type { SampleOptions } from "../tasks/sample-options.js";
import { variableTracking } from "../tasks/variable-tracking/variable-tracking.js";

export interface TaskOptions extends Omit<SampleOptions, "index"> {
  /** Samples at this length; of a grid, samples in each of its cells. */
  count: number;
  /** A text of the user's in which needles in prose are hidden; default generated prose. */
  haystack?: Haystack;
  /** The replies of MRCR's chats; default templates. */
  texts?: TextSource;
}

export interface EvalTask {
  readonly name: string;
  /** One line for people. */
  readonly about: string;
  /** Samples for each that is asked for; default 1. */
  readonly times?: number;
  /** The samples of one length. The same seed gives the same cores at every length. */
  samples(options: TaskOptions): Iterable<Sample>;
}

/** One sample an index. */
function task(name: string, about: string, make: (options: SampleOptions) => Sample): EvalTask {
  return {
    name,
    about,
    *samples({ count, haystack: _, texts: __, ...options }) {
      for (let index = 0; index < count; index++) yield make({ ...options, index });
    },
  };
}

const needles: Record<NiahVariant, string> = {
  niah_s1: "one needle in noise (RULER single_1)",
  niah_s2: "one needle in prose (RULER single_2)",
  niah_s3: "one needle with a UUID (RULER single_3)",
  niah_mk1: "one of four needles (RULER multikey_1)",
  niah_mk2: "one needle among nothing but needles (RULER multikey_2)",
  niah_mk3: "the same with UUIDs (RULER multikey_3)",
  niah_mv: "four values of one key (RULER multivalue)",
  niah_mq: "four keys at once (RULER multiquery)",
  niah_100: "a hundred needles, all asked",
};

const books: Record<Condition, string> = {
  none: "without any book",
  half: "from half a book",
  full: "from one book (after MTOB)",
  "rules-only": "from grammar and dictionary without examples",
  "examples-only": "from sentence pairs alone",
};

const GRID_DEPTHS = 11;

const grid: EvalTask = {
  name: "niah_grid",
  about: `one needle at ${GRID_DEPTHS} depths: the heat map`,
  times: GRID_DEPTHS,
  *samples({ count, haystack, texts: _, ...options }) {
    for (const depth of needleDepths(GRID_DEPTHS)) {
      for (let index = 0; index < count; index++) {
        yield niah({ ...options, index }, { placement: { adjacent: depth / 100 }, ...(haystack && { haystack }) });
      }
    }
  },
};

/** Fresh pairs for each test sentence, as in Gemini's report. */
const PAIR_DRAWS = 3;

const pairs: EvalTask = {
  name: "conlang_pairs",
  about: "from as many sentence pairs as fit, 1 to 4096: in-context learning",
  times: PAIR_DRAWS,
  *samples({ count, haystack: _, texts: __, ...options }) {
    for (let index = 0; index < count; index++) {
      for (let draw = 0; draw < PAIR_DRAWS; draw++) yield longestIclSample({ ...options, index }, { draw });
    }
  },
};

/** Only where the variant's own haystack is prose: noise and needles are what the others are about. */
function needleTask(variant: NiahVariant): EvalTask {
  return {
    name: variant,
    about: needles[variant],
    *samples({ count, haystack, texts: _, ...options }) {
      const own = haystack !== undefined && NIAH_VARIANTS[variant].haystack === "prose" ? { haystack } : {};
      const params: NiahParams = { variant, ...own };
      for (let index = 0; index < count; index++) yield niah({ ...options, index }, params);
    },
  };
}

function mrcrTask(needles: 2 | 4 | 8): EvalTask {
  return {
    name: `mrcr_${needles}`,
    about: `copy one of ${needles} like replies of a long chat (MRCR)`,
    *samples({ count, haystack: _, texts, ...options }) {
      for (let index = 0; index < count; index++) {
        yield mrcr({ ...options, index }, { needles, ...(texts === undefined ? {} : { texts }) });
      }
    },
  };
}

export const TASKS: readonly EvalTask[] = [
  task("latent_list", "what a long Python program leaves in a list (Michelangelo)", (options) => latentList(options)),
  grid,
  ...Object.keys(NIAH_VARIANTS).map((variant) => needleTask(variant as NiahVariant)),
  ...([2, 4, 8] as const).map(mrcrTask),
  task("idk", "whether a model says that the text doesn't tell (Michelangelo)", (options) => idk(options)),
  ...CONDITIONS.map((condition) =>
    task(`conlang_${condition}`, `translation of a made-up language, ${books[condition]}`, (options) =>
      conlang(options, { condition }),
    ),
  ),
  pairs,
  task("vt", "variables assigned to each other (RULER vt)", (options) => variableTracking(options)),
  task("cwe", "the most common words of a list (RULER cwe)", (options) => commonWords(options)),
  task("fwe", "the most frequent coded words (RULER fwe)", (options) => frequentWords(options)),
  task("qa1", "a question on one of many documents (RULER qa_1)", (options) => docQa(options, { hops: 1 })),
  task("qa2", "a question that takes two documents (RULER qa_2)", (options) => docQa(options, { hops: 2 })),
  task("qa_literal", "a question in the words of its document", (options) => docQa(options, { literal: true })),
  task("qa_paraphrased", "the same question in other words (after NoLiMa)", (options) =>
    docQa(options, { literal: false }),
  ),
];

/** Names for several tasks. */
export const TASK_GROUPS: Readonly<Record<string, readonly string[]>> = {
  michelangelo: ["latent_list", "mrcr_2", "idk"],
  niah: Object.keys(NIAH_VARIANTS).filter((name) => name !== "niah_100"),
  ruler: [...Object.keys(NIAH_VARIANTS).filter((name) => name !== "niah_100"), "vt", "cwe", "fwe", "qa1", "qa2"],
  all: TASKS.map(({ name }) => name),
};

/** @throws {OptionError} for a name that is neither a task's nor a group's */
export function tasksNamed(names: readonly string[]): EvalTask[] {
  const wanted = names.flatMap((name) => TASK_GROUPS[name] ?? [name]);
  return [...new Set(wanted)].map((name) => {
    const found = TASKS.find((entry) => entry.name === name);
    if (found !== undefined) return found;
    const known = [...TASKS.map((entry) => entry.name), ...Object.keys(TASK_GROUPS)];
    throw new OptionError(`[tasks] there is no task "${name}". Tasks and groups: ${known.join(", ")}.`);
  });
}
