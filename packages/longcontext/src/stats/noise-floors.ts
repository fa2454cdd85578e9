/** What a model scores that knows nothing but the form of the answer. A score means something only above these. */
import { Random, type Seed } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { pickSome } from "../random.js";
import { requireInteger } from "../require-integer.js";
import { latentListScore } from "../score/latent-list.js";
import { type MrcrAnswer, type MrcrScorer, mrcrStrict } from "../score/mrcr.js";
import { evaluateView, printList, type View } from "../tasks/latent-list/program.js";

export interface MrcrFloors {
  /** Mean score of the hash followed by any reply of the transcript. */
  floorAll: number;
  /** Of the hash followed by any of the replies to the key that is asked for, the right one among them. */
  floorRelevant: number;
}

export interface MrcrFloorOptions {
  /** Default `mrcrStrict`. Floors and scores must come from one scorer. */
  scorer?: MrcrScorer;
  /** Score at most so many of the replies, drawn without repetition; default 256. With fewer replies the floors are exact. */
  draws?: number;
  seed?: Seed;
}

/**
 * Floors of one MRCR sample: the mean score of the hash with a uniformly random reply.
 *
 * @param replies.all - every reply of the transcript
 * @param replies.relevant - the replies to the key that is asked for
 */
export function mrcrFloors(
  answer: MrcrAnswer,
  replies: { all: readonly string[]; relevant: readonly string[] },
  options: MrcrFloorOptions = {},
): MrcrFloors {
  const { scorer = mrcrStrict, draws = 256, seed = 0 } = options;
  requireInteger("mrcrFloors", "draws", draws, 1);
  const floor = (name: "all" | "relevant"): number => {
    const candidates = replies[name];
    if (candidates.length === 0) throw new OptionError(`[mrcrFloors] replies.${name} must not be empty.`);
    const chosen =
      candidates.length <= draws ? candidates : pickSome(new Random(seed, `mrcr floor/${name}`), candidates, draws);
    const total = chosen.reduce((sum, reply) => sum + scorer(answer, answer.hash + reply), 0);
    return total / chosen.length;
  };
  return { floorAll: floor("all"), floorRelevant: floor("relevant") };
}

/** `(score − floor) / (1 − floor)`: 0 at the floor, 1 for a perfect score. */
export function aboveFloor(score: number, floor: number): number {
  if (!(floor < 1)) throw new OptionError(`[aboveFloor] the floor must be below 1; received ${floor}.`);
  return (score - floor) / (1 - floor);
}

/** A Latent List program, as its sample tells it. */
export interface LatentListProgram {
  /** Initial assignment, relevant operations, view: `meta.core`. */
  core: readonly string[];
  view: View;
  target: string;
}

/**
 * The guess of a model that saw the numbers of a program and followed nothing: the view of a random subset of them, in the order in which they
 * came. The size of the subset is drawn first, each from 1 to all equally likely.
 */
export function guessLatentList(program: Pick<LatentListProgram, "core" | "view">, random: Random): string {
  const numbers = program.core.slice(0, -1).flatMap((line) => (line.match(/-?\d+/g) ?? []).map(Number));
  if (numbers.length === 0)
    throw new OptionError("[guessLatentList] the program has no numbers; its first line must assign the list.");
  const size = random.integer(1, numbers.length + 1);
  const kept = random.permutation(numbers.length).subarray(0, size).sort();
  const list = Array.from(kept, (i) => numbers[i]!);
  const shown = evaluateView(list, { view: program.view });
  // A list of numbers that isn't empty has every view.
  return "output" in shown ? shown.output : printList(list);
}

/**
 * Mean score of `guessLatentList` over the programs, by Monte Carlo: about 37, 27 and 20 % for programs of 1, 5 and 20 operations with all views. The
 * paper (arXiv:2409.12640 App. B.1) states 16.9, 11.3 and 8.5 % for a guess that it doesn't describe; ours knows the view, so it is the safer floor.
 */
export function latentListChance(
  programs: readonly LatentListProgram[],
  options: { draws?: number; seed?: Seed } = {},
): number {
  const { draws = 100, seed = 0 } = options;
  requireInteger("latentListChance", "draws", draws, 1);
  if (programs.length === 0) throw new OptionError("[latentListChance] needs at least one program; received none.");
  let total = 0;
  for (const [index, program] of programs.entries()) {
    const random = new Random(seed, "latent list chance", index);
    for (let draw = 0; draw < draws; draw++) {
      const guess = guessLatentList(program, random);
      total += latentListScore(program.view, program.target, program.view === "print" ? guess : Number(guess));
    }
  }
  return total / (programs.length * draws);
}
