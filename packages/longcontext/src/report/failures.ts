/** Replies that missed, with what is needed to see why. */
import type { Excerpt, ExcerptPart, TextPiece } from "@llmeff/report";
import type { ResultRecord } from "../runner/result.js";
import type { Sample } from "../sample.js";
import { stripReasoning } from "../score/clean-response.js";
import { matchingBlocks } from "../score/sequence-matcher.js";
import { countedScore, latestRecords, taskLabel } from "./aggregate.js";
import { promptExcerpt } from "./prompt-excerpt.js";

const MOST = 60;
const MOST_TEXT = 3000;
/** Finding what two texts share takes time with the product of their lengths. */
const MOST_DIFF = 6000;

/** The records to be shown: the worst of every model and task in turn, so that no task crowds out another. */
export function chooseFailures(records: Iterable<ResultRecord>, most = MOST): ResultRecord[] {
  const groups = new Map<string, ResultRecord[]>();
  for (const record of latestRecords(records)) {
    const score = countedScore(record, {});
    if (score === 1) continue;
    const key = `${record.model}\n${taskLabel(record)}`;
    groups.set(key, [...(groups.get(key) ?? []), record]);
  }
  const queues = [...groups.values()].map((group) => group.sort((a, b) => (a.score ?? 0) - (b.score ?? 0)));
  const chosen: ResultRecord[] = [];
  for (let i = 0; chosen.length < most && queues.some((queue) => queue.length > i); i++) {
    for (const queue of queues) if (queue[i] !== undefined && chosen.length < most) chosen.push(queue[i]!);
  }
  return chosen;
}

/** @param sample - the one that the record is of, where it is at hand: adds target and prompt */
export function failureExcerpt(record: ResultRecord, sample: Sample | undefined): Excerpt {
  const score = record.score === undefined ? record.status : `${(100 * record.score).toFixed(0)} %`;
  const title = `${taskLabel(record)} · ${record.model} · ${record.maxTokens.toLocaleString("en-US")} tokens · ${score} · ${record.id}`;
  return { title, parts: [...outcome(record), ...comparison(record, sample)] };
}

function outcome({ status, error, extracted }: ResultRecord): ExcerptPart[] {
  const parts: ExcerptPart[] = [];
  if (status !== "ok") parts.push({ name: "Status", text: error === undefined ? status : `${status}: ${error}` });
  if (extracted !== undefined) parts.push({ name: "Answer taken", text: extracted ?? "none found" });
  return parts;
}

function comparison(record: ResultRecord, sample: Sample | undefined): ExcerptPart[] {
  const reply = cut(record.text);
  if (sample === undefined) return [{ name: "Reply", text: reply }];
  const target = Array.isArray(sample.target) ? sample.target.join("\n") : sample.target;
  const prompt = { name: "Prompt, in parts", text: promptExcerpt(sample) };
  const answer = stripReasoning(record.text).trim();
  if (record.task !== "mrcr" || answer.length > MOST_DIFF || target.length > MOST_DIFF) {
    return [{ name: "Target", text: cut(target) }, { name: "Reply", text: reply }, prompt];
  }
  const blocks = matchingBlocks(target, answer, { autojunk: false });
  return [
    {
      name: "Target; marked what the reply shares with it",
      text: marked(
        target,
        blocks.map(({ a, size }) => [a, size]),
      ),
    },
    {
      name: "Reply",
      text: marked(
        answer,
        blocks.map(({ b, size }) => [b, size]),
      ),
    },
    prompt,
  ];
}

/** Pieces of a text by blocks of code points, in order. */
function marked(text: string, blocks: [start: number, size: number][]): TextPiece[] {
  const points = [...text];
  const pieces: TextPiece[] = [];
  let at = 0;
  for (const [start, size] of blocks) {
    if (start > at) pieces.push({ text: points.slice(at, start).join("") });
    if (size > 0) pieces.push({ text: points.slice(start, start + size).join(""), marked: true });
    at = start + size;
  }
  return pieces;
}

function cut(text: string): string {
  if (text === "") return "(empty)";
  return text.length > MOST_TEXT
    ? `${text.slice(0, MOST_TEXT)} … (${text.length.toLocaleString("en-US")} characters)`
    : text;
}
