/** The sections of longcontext.json that are about scores and the reading of answers. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import {
  type ChrfCounts,
  chrf,
  chrfCounts,
  corpusChrf,
  extractChoice,
  extractLatentList,
  extractTranslation,
  type LabelQuestion,
  labelExclusive,
  latentListScore,
  type MatchingBlock,
  matchAll,
  matchingBlocks,
  matchPart,
  mrcrScores,
  postprocess,
  type ResponseMode,
  ratio,
  setF1,
  squadScore,
} from "../src/index.js";
import type { View } from "../src/tasks/latent-list/program.js";

type Block = [a: number, b: number, size: number];

interface Golden {
  latentListScore: { view: View; target: string; answer: string | number | null; score: number }[];
  sequenceMatcher: ({ a: string; b: string; junkOnBlocks?: Block[]; junkOffBlocks?: Block[] } & Record<
    "junkOn" | "junkOff" | "junkOnSwapped" | "junkOffSwapped",
    number
  >)[];
  mrcrScore: ({ hash: string; content: string; response: string } & Record<
    "openai" | "gdmV2" | "michelangelo" | "strict",
    number
  >)[];
  chrf: ({ hyp: string; refs: string[]; stats?: ChrfCounts[] } & Record<"chrf" | "chrfpp", number> &
    Partial<Record<"lower" | "space" | "eps" | "beta3", number>>)[];
  chrfCorpus: { hyps: string[]; refs: string[][]; chrf: number; chrfpp: number }[];
  extractLatentList: { view: View; mode: ResponseMode; response: string; answer: string | number | null }[];
  extractChoice: { choices: string[]; response: string; answer: string | null }[];
  extractTranslation: { response: string; translation: string }[];
  rulerMatch: { pred: string; refs: string[]; post: string; all: number; part: number; allBounded: number }[];
  setF1: { pred: string[]; ref: string[]; f1: number }[];
  squad: { pred: string; golds: string[]; em: number; f1: number }[];
  labelExclusive: (LabelQuestion & { output: string; correct: boolean })[];
}

const RATIO = 1e-12;
const CHRF = 1e-9;

const asTriples = (blocks: MatchingBlock[]): Block[] => blocks.map(({ a, b, size }) => [a, b, size]);

function expectNear(got: number, want: number, tolerance: number, what: string): void {
  expect(Math.abs(got - want), `${what}: ${got}, should be ${want}`).toBeLessThanOrEqual(tolerance);
}

describeGolden("longcontext.json", (path) => {
  const golden = JSON.parse(readFileSync(path, "utf8")) as Golden;
  /** Cases have no names, so they are counted. */
  const numbered = <Case>(cases: Case[]): [number, Case][] => cases.map((it, i) => [i, it]);

  describe("sequenceMatcher", () => {
    it.each(numbered(golden.sequenceMatcher))("case %i", (_, { a, b, ...want }) => {
      const off = { autojunk: false };
      expectNear(ratio(a, b), want.junkOn, RATIO, "autojunk on");
      expectNear(ratio(a, b, off), want.junkOff, RATIO, "autojunk off");
      expectNear(ratio(b, a), want.junkOnSwapped, RATIO, "autojunk on, swapped");
      expectNear(ratio(b, a, off), want.junkOffSwapped, RATIO, "autojunk off, swapped");
      if (want.junkOnBlocks) expect(asTriples(matchingBlocks(a, b))).toEqual(want.junkOnBlocks);
      if (want.junkOffBlocks) expect(asTriples(matchingBlocks(a, b, off))).toEqual(want.junkOffBlocks);
    });
  });

  describe("mrcrScore", () => {
    it.each(numbered(golden.mrcrScore))("case %i", (_, { hash, content, response, ...want }) => {
      const scores = mrcrScores({ hash, reply: content }, response);
      expectNear(scores.openai, want.openai, RATIO, "openai");
      expectNear(scores["gdm-v2"], want.gdmV2, RATIO, "gdm-v2");
      expectNear(scores.michelangelo, want.michelangelo, RATIO, "michelangelo");
      expectNear(scores.strict, want.strict, RATIO, "strict");
    });
  });

  describe("latentListScore", () => {
    it.each(golden.latentListScore)("$view of $target, answer $answer", ({ view, target, answer, score }) => {
      expectNear(latentListScore(view, target, answer), score, 1e-15, "score");
    });
  });

  describe("chrf", () => {
    it.each(numbered(golden.chrf))("case %i", (_, { hyp, refs, stats, ...want }) => {
      expectNear(chrf(hyp, refs), want.chrf, CHRF, "chrF");
      expectNear(chrf(hyp, refs, { wordOrder: 2 }), want.chrfpp, CHRF, "chrF++");
      const variants = {
        lower: { lowercase: true },
        space: { keepWhitespace: true },
        eps: { epsSmoothing: true },
        beta3: { beta: 3 },
      };
      for (const [name, options] of Object.entries(variants)) {
        const score = want[name as keyof typeof variants];
        if (score !== undefined) expectNear(chrf(hyp, refs, options), score, CHRF, name);
      }
      if (stats) expect(chrfCounts(hyp, refs[0]!)).toEqual(stats);
    });
  });

  describe("chrfCorpus", () => {
    it.each(numbered(golden.chrfCorpus))("case %i", (_, { hyps, refs, ...want }) => {
      expectNear(corpusChrf(hyps, refs), want.chrf, CHRF, "chrF");
      expectNear(corpusChrf(hyps, refs, { wordOrder: 2 }), want.chrfpp, CHRF, "chrF++");
    });
  });

  describe("extractLatentList", () => {
    it.each(golden.extractLatentList)("$view, $mode: $response", ({ view, mode, response, answer }) => {
      expect(extractLatentList(view, response, { mode })).toBe(answer);
    });
  });

  describe("extractChoice", () => {
    it.each(golden.extractChoice)("$response", ({ choices, response, answer }) => {
      expect(extractChoice(choices, response)).toBe(answer);
    });
  });

  describe("extractTranslation", () => {
    it.each(golden.extractTranslation)("$response", ({ response, translation }) => {
      expect(extractTranslation(response)).toBe(translation);
    });
  });

  describe("rulerMatch", () => {
    it.each(golden.rulerMatch)("$pred", ({ pred, refs, post, all, part, allBounded }) => {
      expect(postprocess(pred)).toBe(post);
      expect(matchAll(pred, refs, { compat: "ruler" })).toBe(all);
      expect(matchPart(pred, refs, { compat: "ruler" })).toBe(part);
      expect(matchAll(pred, refs)).toBe(allBounded);
    });
  });

  describe("setF1", () => {
    it.each(golden.setF1)("$pred of $ref", ({ pred, ref, f1 }) => {
      expect(setF1(pred, ref)).toBe(f1);
    });
  });

  describe("squad", () => {
    it.each(golden.squad)("$pred for $golds", ({ pred, golds, em, f1 }) => {
      expect(squadScore(pred, golds)).toEqual({ exactMatch: em, f1 });
    });
  });

  describe("labelExclusive", () => {
    it.each(golden.labelExclusive)("$output for $target", ({ output, correct, ...question }) => {
      expect(labelExclusive(question, output)).toBe(correct);
    });
  });
});
