/** Needles in a haystack: the retrieval tasks of RULER (arXiv:2404.06654), and a hundred needles (arXiv:2403.05530 §5.2.1.5). */
import { OptionError } from "@llmeff/native/errors";
import { pickSome, streamFor } from "../../random.js";
import { requireInteger } from "../../require-integer.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { TextUnits } from "../../tokens/budget.js";
import { type Placement, positionsFor } from "../../tokens/placement.js";
import { utf8Bytes } from "../../tokens/tokenizer.js";
import { FlatContext } from "../flat-context.js";
import { type Haystack, haystackName, haystackUnits } from "../haystack.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";
import { type NeedleKind, needleLine, needleStrings } from "./needles.js";

interface Preset {
  haystack: "prose" | "noise" | "needles";
  keyKind: NeedleKind;
  valueKind: NeedleKind;
  /** Keys among the relevant needles. */
  keys: number;
  /** Keys asked for. */
  queries: number;
  /** Values of every key. */
  values: number;
  reserve: number;
}

const single: Preset = {
  haystack: "prose",
  keyKind: "words",
  valueKind: "numbers",
  keys: 1,
  queries: 1,
  values: 1,
  reserve: 128,
};

/** RULER's names: niah_single_1 … 3, multikey_1 … 3, multivalue, multiquery. */
export const NIAH_VARIANTS = {
  niah_s1: { ...single, haystack: "noise" },
  niah_s2: single,
  niah_s3: { ...single, valueKind: "uuids" },
  niah_mk1: { ...single, keys: 4 },
  niah_mk2: { ...single, haystack: "needles" },
  niah_mk3: { ...single, haystack: "needles", keyKind: "uuids", valueKind: "uuids" },
  niah_mv: { ...single, values: 4 },
  niah_mq: { ...single, keys: 4, queries: 4 },
  niah_100: { ...single, keyKind: "cities", keys: 100, queries: 100, reserve: 2500 },
} as const satisfies Record<string, Preset>;

export type NiahVariant = keyof typeof NIAH_VARIANTS;

export interface NiahParams {
  /** Default `niah_s2`. */
  variant?: NiahVariant;
  /** In place of the variant's. */
  haystack?: Haystack;
  /** Default `uniform`; `{ depths: [d] }` for a grid. */
  placement?: Placement;
  /** Relevant needles' keys, in place of the variant's 1, 4 or 100; all are asked where the variant asks more than one. */
  keys?: number;
}

export interface NiahMeta extends SampleMeta {
  variant: NiahVariant;
  haystack: string;
  /** Keys asked for, in the order of the question. */
  queries: string[];
  /** Relevant needles, `[key, value]`, in the order of the text. */
  needles: [string, string][];
  /** Depth of each of them in percent. */
  depths: number[];
  /** Where one depth was asked for, in percent. The needle stands between two units of filler, so that `depths` tells another in a short context. */
  askedDepth?: number;
}

const MOST_KEYS = 10_000;
const INTRODUCTION =
  "Somewhere in the text below are registry codes. Remember them; a question about them follows after the text.";

function question(keys: readonly string[], values: number): string {
  const what = keys.length > 1 || values > 1 ? "all registry codes" : "the registry code";
  return `Question: What ${keys.length > 1 || values > 1 ? "are" : "is"} ${what} for ${keys.join(", ")}? Give the codes alone.`;
}

/**
 * Lines `The registry code for KEY is VALUE.` among filler, and a question for the values of some keys. Complexity is the number of
 * relevant needles: those of all keys but the distractors of `niah_mk2` and `niah_mk3`, which are the filler.
 *
 * @throws {HaystackTooShortError} if a text of the user's ends before the budget is met
 */
export function niah(options: SampleOptions, params: NiahParams = {}): Sample<string[], NiahMeta> {
  const { seed, index, tokenizer = utf8Bytes } = options;
  const { variant = "niah_s2", placement = "uniform" } = params;
  const preset: Preset | undefined = NIAH_VARIANTS[variant];
  if (preset === undefined) {
    throw new OptionError(
      `[niah] variant must be one of ${Object.keys(NIAH_VARIANTS).join(", ")}; received ${variant}.`,
    );
  }
  const { keyKind, valueKind, values } = preset;
  const keys = params.keys ?? preset.keys;
  requireInteger("niah", "keys", keys, 1, MOST_KEYS);
  const haystack = params.haystack ?? preset.haystack;
  const stream = (purpose: string) => streamFor(seed, "niah", index, `${variant}/${purpose}`);
  const known = typeof haystack === "object" ? haystack.text : undefined;
  const keyAt = unseen(needleStrings(keyKind, stream("keys")), known);
  const valueAt = unseen(needleStrings(valueKind, stream("values")), known);
  const order = stream(`order/${keys}`);
  const needles = Array.from(order.permutation(keys * values), (i): [string, string] => [keyAt(i % keys), valueAt(i)]);
  const asked = preset.queries > 1 ? keys : 1;
  const queries = pickSome(
    order,
    Array.from({ length: keys }, (_, i) => keyAt(i)),
    asked,
  );
  const filler = stream("filler");
  const units =
    haystack === "needles"
      ? new TextUnits((i) => needleLine(keyAt(keys + i), valueAt(keys * values + i)), tokenizer)
      : haystackUnits("niah", haystack, filler, tokenizer);
  const positions = positionsFor("niah", placement, needles.length, stream(`placement/${needles.length}`));
  const context = new FlatContext(
    needles.map(([key, value]) => needleLine(key, value)),
    positions,
    units,
  );
  const name = haystack === "needles" ? haystack : haystackName(haystack);
  return assembleSample<string[], Omit<NiahMeta, keyof SampleMeta>>({
    task: "niah",
    options,
    params: { variant, haystack: name, placement, keys },
    complexity: needles.length,
    units,
    reserve: preset.reserve,
    target: queries.flatMap((key) => needles.filter((needle) => needle[0] === key).map((needle) => needle[1])),
    render: (selection) => [
      {
        role: "user",
        content: context.pieces(`${INTRODUCTION}\n\n`, selection, `\n\n${question(queries, values)}\nAnswer:`),
      },
    ],
    meta: ({ selection }) => ({
      ...askedDepth(placement),
      variant,
      haystack: name,
      queries,
      needles,
      depths: context.depths(selection, tokenizer),
    }),
  }) as Sample<string[], NiahMeta>;
}

function askedDepth(placement: Placement): Pick<NiahMeta, "askedDepth"> {
  if (typeof placement === "string") return {};
  const depths = "adjacent" in placement ? [placement.adjacent] : placement.depths;
  return depths.length === 1 ? { askedDepth: 100 * depths[0]! } : {};
}

/** The stream without the strings that the haystack holds already. */
function unseen(stringAt: (i: number) => string, haystack: string | undefined): (i: number) => string {
  if (haystack === undefined) return stringAt;
  const kept: string[] = [];
  let next = 0;
  return (i) => {
    while (kept.length <= i) {
      const string = stringAt(next++);
      if (!haystack.includes(string)) kept.push(string);
    }
    return kept[i]!;
  };
}
