/** Any sample's reply scored by its task's scorer. */
import { FormatError } from "@llmeff/native/errors";
import type { Score } from "../runner/result.js";
import type { Sample } from "../sample.js";
import { CHOICE_LETTERS, extractChoice } from "../score/choice.js";
import { stripReasoning } from "../score/clean-response.js";
import { extractLatentList, latentListScore, type ResponseMode } from "../score/latent-list.js";
import { mrcrScores } from "../score/mrcr.js";
import { setOverlap, variableNames } from "../score/set-overlap.js";
import { squadScore } from "../score/squad.js";
import { matchAll, matchPart } from "../score/string-match.js";
import { translationScore } from "../score/translation.js";
import { VIEWS, type View } from "../tasks/latent-list/program.js";
import { floorOf } from "./floor.js";

/**
 * Score of a reply: `score` is the task's headline in 0..1, `metrics` its other figures, `floor` what a guess would get.
 *
 * latent_list: exact or approximate answer. mrcr: `strict`; beside it the published scorers. idk: the right letter. niah, common_words,
 * frequent_words: share of the values found. variable_tracking: F1 of the names. doc_qa: an accepted answer found. conlang: chrF / 100.
 *
 * @param mode - kind of the model: a base model goes on after its answer, so that of some tasks only the first line counts
 * @throws {FormatError} if the sample lacks what its scorer needs
 */
export function scoreSample(sample: Sample, text: string, mode: ResponseMode = "chat"): Score {
  const score = byTask(sample, text, mode);
  const { floor, floorAll } = floorOf(sample);
  return {
    ...score,
    ...(floorAll === undefined ? {} : { metrics: { ...score.metrics, floorAll } }),
    ...(floor === undefined ? {} : { floor }),
  };
}

function byTask(sample: Sample, text: string, mode: ResponseMode): Score {
  switch (sample.task) {
    case "latent_list":
      return latentList(sample, text, mode);
    case "mrcr":
      return mrcr(sample, text);
    case "idk":
      return choice(sample, text);
    case "variable_tracking":
      return variables(sample, text);
    case "niah":
    case "common_words":
    case "frequent_words": {
      const score = matchAll(stripReasoning(text), list(sample));
      return { score, metrics: { ruler: matchAll(text, list(sample), { compat: "ruler" }) } };
    }
    case "doc_qa": {
      const answer = stripReasoning(text);
      const { exactMatch, f1 } = squadScore(answer, list(sample));
      return { score: matchPart(answer, list(sample)), metrics: { exactMatch, f1 } };
    }
    case "conlang": {
      const { translation, chrf, chrfPlusPlus, exact } = translationScore(text, list(sample));
      return {
        score: chrf / 100,
        metrics: { chrfPlusPlus: chrfPlusPlus / 100, exact: exact ? 1 : 0 },
        extracted: translation,
      };
    }
  }
}

function latentList(sample: Sample, text: string, mode: ResponseMode): Score {
  const { view } = sample.meta;
  if (!VIEWS.includes(view as View)) throw lacking(sample, "meta.view");
  const answer = extractLatentList(view as View, text, { mode });
  const score = latentListScore(view as View, single(sample), answer);
  return { score, extracted: answer === null ? null : String(answer) };
}

function mrcr(sample: Sample, text: string): Score {
  const { hash } = sample.meta;
  const target = single(sample);
  if (typeof hash !== "string" || hash === "" || !target.startsWith(hash)) throw lacking(sample, "meta.hash");
  const { strict, prefixHit, exact, ...compatible } = mrcrScores({ hash, reply: target.slice(hash.length) }, text);
  const metrics = { ...compatible, prefixHit: prefixHit ? 1 : 0, exact: exact ? 1 : 0 };
  return { score: strict, metrics };
}

function choice(sample: Sample, text: string): Score {
  const { choices } = sample.meta;
  if (!Array.isArray(choices) || choices.length !== CHOICE_LETTERS.length) throw lacking(sample, "meta.choices");
  const letter = extractChoice(choices.map(String), text);
  return { score: letter === single(sample) ? 1 : 0, extracted: letter };
}

function variables(sample: Sample, text: string): Score {
  const names = variableNames(stripReasoning(text));
  const { f1, recall, precision } = setOverlap(names, list(sample));
  return { score: f1, metrics: { recall, precision }, extracted: names.join(", ") };
}

function single(sample: Sample): string {
  if (typeof sample.target !== "string") throw lacking(sample, "a text as target");
  return sample.target;
}

function list(sample: Sample): string[] {
  if (!Array.isArray(sample.target) || sample.target.length === 0) throw lacking(sample, "a list as target");
  return sample.target;
}

function lacking({ id, task }: Sample, what: string): FormatError {
  return new FormatError(
    `[score] sample "${id}" lacks ${what}, which ${task} is scored by. Was it made by another program?`,
  );
}

/** What a perfect model would reply. */
export function targetText({ task, target }: Sample): string {
  if (typeof target === "string") return target;
  return task === "doc_qa" || task === "conlang" ? target[0]! : target.join(", ");
}
