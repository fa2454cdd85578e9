/** MRCR as the published sets report it: each by its own scorer, in its own bins of length. */
import type { Block, TableBlock } from "@llmeff/report";
import type { ResultRecord } from "../runner/result.js";
import type { MrcrScorerName } from "../score/mrcr.js";
import type { ScoredLength } from "../stats/cumulative.js";
import { type GdmMrcrBuckets, gdmMrcrBuckets, type MrcrBuckets, openAiMrcrBins } from "../stats/mrcr-buckets.js";
import { shareWithInterval } from "./shares.js";
import { tokensLabel } from "./tokens-label.js";

export interface MrcrResult {
  openai: MrcrBuckets;
  gdm: GdmMrcrBuckets;
}

/** @param scored - the records that count, by one of their figures */
export function mrcrResult(
  records: readonly ResultRecord[],
  scored: (metric: MrcrScorerName) => (ScoredLength & { record: ResultRecord })[],
): MrcrResult | null {
  if (records.some(({ task }) => task !== "mrcr")) return null;
  const withAnswer = scored("openai").map(({ record: { answerShare = 0 }, tokens, ...rest }) => ({
    ...rest,
    tokens: Math.round(tokens * (1 + answerShare)),
  }));
  return { openai: openAiMrcrBins(withAnswer), gdm: gdmMrcrBuckets(scored("gdm-v2")) };
}

/** A table for each of the two sets, where results lie in its bins. */
export function mrcrTables(results: readonly { model: string; mrcr: MrcrResult | null }[]): Block[] {
  const own = results.flatMap(({ model, mrcr }) => (mrcr === null ? [] : [{ model, ...mrcr }]));
  const openai = own.map(({ model, openai }) => ({ model, ...openai, more: [] }));
  const gdm = own.map(({ model, gdm }) => ({ model, ...gdm, more: [shareWithInterval(gdm.upTo128k)] }));
  return [
    ...bucketTable(openai, {
      caption: "As OpenAI-MRCR reports",
      more: [],
      note: "OpenAI's scorer; bins of the tokens of prompt and right answer.",
      range: "4k to 1M",
    }),
    ...bucketTable(gdm, {
      caption: "As MRCR v2 reports",
      more: [{ header: "≤ 128k", align: "right" }],
      note: "eval_hub's scorer; buckets of the prompt's tokens. ≤ 128k: the mean of the five buckets up to there, with a dash where one of them is empty.",
      range: "4k to 8M",
    }),
  ];
}

interface Row extends MrcrBuckets {
  model: string;
  more: (string | null)[];
}

interface Wording {
  caption: string;
  more: TableBlock["columns"];
  note: string;
  range: string;
}

function bucketTable(rows: readonly Row[], { caption, more, note, range }: Wording): TableBlock[] {
  const ends = [...new Set(rows.flatMap(({ bins }) => bins.map(({ tokens }) => tokens[1])))].sort((a, b) => a - b);
  if (ends.length === 0) return [];
  const outside = rows.filter((row) => row.outside > 0).map((row) => `${row.outside} of ${row.model}`);
  return [
    {
      kind: "table",
      caption,
      columns: [
        { header: "Model" },
        ...ends.map((end) => ({ header: `${tokensLabel(end / 2)}–${tokensLabel(end)}`, align: "right" as const })),
        ...more,
      ],
      rows: rows.map((row) => [
        row.model,
        ...ends.map((end) => {
          const bin = row.bins.find(({ tokens }) => tokens[1] === end);
          return bin === undefined ? null : shareWithInterval(bin);
        }),
        ...row.more,
      ]),
      note: `${note} Tokens as the endpoint counted, else as the samples' tokenizer did.${outside.length > 0 ? ` Samples outside of ${range}: ${outside.join(", ")}.` : ""}`,
    },
  ];
}
