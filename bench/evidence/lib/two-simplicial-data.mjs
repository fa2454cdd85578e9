/** Training batches and held-out sets of the study of 2-simplicial attention. */
import { fileURLToPath } from "node:url";
import {
  byteTokenizer,
  encodeCorpus,
  functionCompositionTask,
  IGNORE_INDEX,
  inductionTask,
  matchTask,
  parityTask,
  ReasoningTask,
  RelationComposition,
  sequentialWindows,
  streamJsonl,
  TokenDataset,
} from "@llmeff/data";

const tasks = {
  match: matchTask,
  parity: parityTask,
  functions: functionCompositionTask,
  induction: inductionTask,
};

/** A split of a generated task. */
export function sourceOf({ kind, batchSize, heldOut: _, ...options }, split, seed) {
  if (kind === "relations") return new RelationComposition({ ...options, batchSize, split, seed });
  return new ReasoningTask(tasks[kind](options), { batchSize, split, seed });
}

/** Held out is the same for all seeds, as one batch. */
const heldOutOf = (data) => sourceOf({ ...data, batchSize: data.heldOut }, "valid", 0).first(data.heldOut);

/** The accuracy on a generated task's held-out sequences of always giving their commonest answer. */
export function majorityRate(data) {
  const counts = new Map();
  const heldOut = heldOutOf(data);
  for (const { targets } of heldOut) for (const id of targets) counts.set(id, (counts.get(id) ?? 0) + 1);
  counts.delete(IGNORE_INDEX);
  return Math.max(...counts.values()) / heldOut.targetCount;
}

/** The text that comes with the project: seven novels for training, an eighth that is held out. */
export const novels = "novels.jsonl.gz";
const novelsPath = fileURLToPath(new URL(`../../../datasets/${novels}`, import.meta.url));
/** Between texts; no text has it. */
const separator = 0;
const texts = new Map();

/** Bytes of a file's texts of a split; of the novels' held-out one for any corpus, so that losses can be compared. */
function bytesOf(corpus, split) {
  const key = `${split} ${corpus}`;
  if (!texts.has(key)) {
    // Where a corpus lies is this machine's affair, and not in the trial.
    const path = corpus === novels || split === "valid" ? novelsPath : process.env.LLMEFF_CORPUS;
    if (path === undefined)
      throw new Error(`[evidence] ${corpus} isn't the project's own text; give its path with --corpus.`);
    texts.set(
      key,
      encodeCorpus(byteTokenizer(), streamJsonl(path, { split }), { separator }).then((ids) => Uint8Array.from(ids)),
    );
  }
  return texts.get(key);
}

/** `{ train, heldOut }`: a source of batches, and batches of `heldOut` sequences in all. */
export async function dataOf(data, seed) {
  if (data.kind !== "text") return { train: sourceOf(data, "train", seed), heldOut: heldOutOf(data) };
  const { corpus, seqLen, batchSize } = data;
  const [text, novel] = await Promise.all([bytesOf(corpus, "train"), bytesOf(corpus, "valid")]);
  return {
    train: new TokenDataset(text, { seqLen, batchSize, seed }),
    heldOut: sequentialWindows(novel, { seqLen, batchSize, maxWindows: data.heldOut }),
  };
}
