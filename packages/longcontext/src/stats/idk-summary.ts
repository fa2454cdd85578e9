/** The numbers of the IDK task: a model that always answers and one that never does look alike in plain accuracy. */
import type { ChoiceLetter } from "../score/choice.js";
import { type MeanInterval, meanInterval } from "./intervals.js";

/** Chance of a random letter. */
export const IDK_CHANCE = 0.25;

export interface IdkAnswer {
  answerable: boolean;
  target: ChoiceLetter;
  /** Null if no letter was found; counts as wrong, and as no answer. */
  chosen: ChoiceLetter | null;
}

export interface IdkSummary {
  /** Accuracy over all, and over those whose answer is and isn't in the text. */
  all: MeanInterval;
  answerable: MeanInterval;
  unanswerable: MeanInterval;
  /** Share of the unanswerable ones that got one of A to C: made up. */
  overAnswering: MeanInterval;
}

export function idkSummary(answers: readonly IdkAnswer[]): IdkSummary {
  const share = (of: readonly IdkAnswer[], counts: (answer: IdkAnswer) => boolean): MeanInterval =>
    meanInterval(of.map((answer) => (counts(answer) ? 1 : 0)));
  const correct = ({ target, chosen }: IdkAnswer): boolean => chosen === target;
  const answerable = answers.filter((answer) => answer.answerable);
  const unanswerable = answers.filter((answer) => !answer.answerable);
  return {
    all: share(answers, correct),
    answerable: share(answerable, correct),
    unanswerable: share(unanswerable, correct),
    overAnswering: share(unanswerable, ({ chosen }) => chosen !== null && chosen !== "D"),
  };
}
