/** Latent List: reading the answer out of a response, and its score. */
import { OptionError } from "@llmeff/native/errors";
import { VIEWS, type View } from "../tasks/latent-list/program.js";
import { BLANK, cleanMarkup, stripReasoning } from "./clean-response.js";

/** A base model goes on with further examples after its answer, so only its first line counts; a chat model may explain first. */
export type ResponseMode = "chat" | "completion";

const MARKER = new RegExp(`(?:final answer|answer|output|result)${BLANK}*(?:is|:|=)${BLANK}*`, "gi");
const INTEGER = "[-\\u2212]?[0-9]+";
const LIST = new RegExp(
  `\\[${BLANK}*(?:${INTEGER}(?:${BLANK}*,${BLANK}*${INTEGER})*${BLANK}*(?:,${BLANK}*)?)?\\]`,
  "g",
);
/** `1,234` and `7.0` are integers; the digits of `3.5`, `x7` and `7th` are not. */
const NUMBER = /(?<![\w.])[-\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.0)?(?!\w|\.\d|,\d)/g;

/**
 * The answer in a response: for `print` the list as Python prints it, for the other views an integer; null if there is none.
 *
 * After a marker such as `Output:` the first list or number counts, without one the last of the whole text.
 *
 * @example
 * extractLatentList("print", "So **Output:** `[3,1]`"); // "[3, 1]"
 * extractLatentList("sum", "2 + 3 = 5"); // 5
 */
export function extractLatentList(
  view: View,
  response: string,
  options: { mode?: ResponseMode } = {},
): string | number | null {
  requireView("extractLatentList", view);
  const { mode = "chat" } = options;
  const cleaned = cleanMarkup(stripReasoning(response));
  const text = mode === "completion" ? firstLine(cleaned) : cleaned;
  const pattern = view === "print" ? LIST : NUMBER;
  const found = afterMarker(text).match(pattern)?.at(0) ?? text.match(pattern)?.at(-1);
  if (found === undefined) return null;
  return view === "print" ? printed(found) : integer(found.replace(/,|\.0$/g, ""));
}

function firstLine(text: string): string {
  return text.split("\n").find((line) => /[^ \t\r\f\v]/.test(line)) ?? "";
}

/** The text after the last marker that has something after it; empty if there is none. */
function afterMarker(text: string): string {
  let rest = "";
  for (const match of text.matchAll(MARKER)) rest = text.slice(match.index + match[0].length) || rest;
  return rest;
}

/** BigInt, since a number that the model made up may be of any length. */
function printed(list: string): string {
  const items = list.match(/[-\u2212]?[0-9]+/g) ?? [];
  return `[${items.map((item) => BigInt(item.replace("\u2212", "-"))).join(", ")}]`;
}

function integer(text: string): number {
  // `+ 0` turns -0 into 0.
  return Number(text.replace("\u2212", "-")) + 0;
}

/**
 * Score of an answer (arXiv:2409.12640 §2.1): a printed list is right or wrong; a number a gets `1 - min(1, |t - a| / (1e-10 + |t|))`.
 *
 * @param target - what the program shows: a list as Python prints it, or an integer
 * @param answer - of `extractLatentList`; null scores 0
 */
export function latentListScore(view: View, target: string, answer: string | number | null): number {
  requireView("latentListScore", view);
  if (view === "print") return answer === target ? 1 : 0;
  const wanted = Number(target);
  if (!/^-?\d+$/.test(target)) {
    throw new OptionError(
      `[latentListScore] the target of ${view} must be an integer; received ${JSON.stringify(target)}.`,
    );
  }
  if (typeof answer !== "number") return 0;
  return 1 - Math.min(1, Math.abs(wanted - answer) / (1e-10 + Math.abs(wanted)));
}

function requireView(where: string, view: View): void {
  if (!VIEWS.includes(view)) {
    throw new OptionError(`[${where}] view must be one of ${VIEWS.join(", ")}; received ${JSON.stringify(view)}.`);
  }
}
