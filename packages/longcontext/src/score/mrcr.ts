/**
 * Scores of multi-round co-reference resolution: the answer must be a hash and right after it a copy of one earlier reply, and what counts is
 * the similarity of the copy. Published scorers differ in where they look for the hash, in the order of the arguments and in autojunk, so their
 * numbers can't be compared; all are here, and `strict` is ours.
 */
import { OptionError } from "@llmeff/native/errors";
import { stripReasoning } from "./clean-response.js";
import { ratio } from "./sequence-matcher.js";
import { trimSpace } from "./unicode-text.js";

export interface MrcrAnswer {
  hash: string;
  /** What had to be copied, without the hash. */
  reply: string;
}

export type MrcrScorer = (answer: MrcrAnswer, response: string) => number;

/**
 * Our headline: without reasoning and outer white space the response must begin with the hash; `ratio(reply, rest)`, autojunk off.
 *
 * Off, because on real texts autojunk drops nearly every letter: one changed word in a thousand can then cost nothing or nearly everything,
 * depending on where it stands and on the order of the arguments.
 *
 * @example
 * mrcrStrict({ hash: "aX3", reply: "Roses are red." }, "aX3 Roses are red."); // 1
 */
export const mrcrStrict: MrcrScorer = (answer, response) => {
  const { hash, reply } = checked("mrcrStrict", answer);
  const text = trimSpace(stripReasoning(response));
  return text.startsWith(hash) ? ratio(reply, trimSpace(text.slice(hash.length)), { autojunk: false }) : 0;
};

/** OpenAI-MRCR: the untrimmed response must begin with the hash; `ratio(rest, reply)`, autojunk on. */
export const mrcrOpenAi: MrcrScorer = (answer, response) => {
  const { hash, reply } = checked("mrcrOpenAi", answer);
  return response.startsWith(hash) ? ratio(response.slice(hash.length), reply) : 0;
};

/** MRCR v2 of eval_hub: the last hash anywhere in the response counts; `ratio(reply, trimmed rest)`, autojunk on. */
export const mrcrGdmV2: MrcrScorer = (answer, response) => {
  const { hash, reply } = checked("mrcrGdmV2", answer);
  const at = response.lastIndexOf(hash);
  return at < 0 ? 0 : ratio(reply, trimSpace(response.slice(at + hash.length)));
};

/** Michelangelo (arXiv:2409.12640 §2.2): the first hash anywhere counts; `ratio(trimmed rest, reply)`, autojunk on. The paper leaves the order open. */
export const mrcrMichelangelo: MrcrScorer = (answer, response) => {
  const { hash, reply } = checked("mrcrMichelangelo", answer);
  const at = response.indexOf(hash);
  return at < 0 ? 0 : ratio(trimSpace(response.slice(at + hash.length)), reply);
};

export const MRCR_SCORERS = {
  strict: mrcrStrict,
  "gdm-v2": mrcrGdmV2,
  openai: mrcrOpenAi,
  michelangelo: mrcrMichelangelo,
} as const satisfies Record<string, MrcrScorer>;

export type MrcrScorerName = keyof typeof MRCR_SCORERS;

export interface MrcrScores extends Record<MrcrScorerName, number> {
  /** The response begins with the hash, as `strict` demands. Its mean is the prefix hit rate. */
  prefixHit: boolean;
  /** The copy is perfect by `strict`. */
  exact: boolean;
}

/** All scores of one response. */
export function mrcrScores(answer: MrcrAnswer, response: string): MrcrScores {
  const strict = mrcrStrict(answer, response);
  return {
    strict,
    "gdm-v2": mrcrGdmV2(answer, response),
    openai: mrcrOpenAi(answer, response),
    michelangelo: mrcrMichelangelo(answer, response),
    prefixHit: trimSpace(stripReasoning(response)).startsWith(answer.hash),
    exact: strict === 1,
  };
}

function checked(where: string, answer: MrcrAnswer): MrcrAnswer {
  if (answer.hash === "") {
    throw new OptionError(
      `[${where}] the hash must not be empty; every response would begin with it. Is this sample's meta complete?`,
    );
  }
  return answer;
}
