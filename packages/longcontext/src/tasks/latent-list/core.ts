/** The relevant part of a Latent List program: every operation counts. */
import type { Random } from "@llmeff/data";
import { GenerationError } from "../../errors.js";
import { pick } from "../../random.js";
import { drawOperand } from "./filler.js";
import { applyStatement, evaluateView, type Statement, type View } from "./program.js";
import { relevantStatements } from "./relevance.js";

export const INITIAL: readonly number[] = [1, 2, 3, 4, 5, 6];
const MOST_DRAWS = 2000;
const OPERATIONS = ["append", "insert", "pop", "remove", "sort", "reverse"] as const;

export type Relevance = "state" | "view";

export interface Core {
  /** Initial assignment and operations; the view comes apart. */
  statements: Statement[];
  view: Statement & { kind: "view" };
  output: string;
}

/**
 * Draws `complexity` operations, one by one and each changing the list, then a view, until every operation is relevant.
 *
 * @throws {GenerationError} after 2000 draws
 */
export function drawCore(random: Random, complexity: number, relevance: Relevance, views: readonly View[]): Core {
  for (let draw = 0; draw < MOST_DRAWS; draw++) {
    const { statements, list } = drawOperations(random, complexity);
    const view = drawView(random, list, relevance, views);
    const shown = evaluateView(list, view);
    if ("output" in shown && relevantStatements([...statements, view], relevance).every(Boolean)) {
      return { statements, view, output: shown.output };
    }
  }
  throw new GenerationError(
    `[latent_list] no program of ${complexity} operations in ${MOST_DRAWS} draws has only operations relevant to the ${relevance}. Take a smaller complexity, or relevance "state".`,
  );
}

function drawOperations(random: Random, complexity: number): { statements: Statement[]; list: number[] } {
  const list = [...INITIAL];
  const statements: Statement[] = [{ kind: "assign", values: [...INITIAL] }];
  while (statements.length <= complexity) {
    const statement = drawOperation(random, list);
    if (statement === undefined) continue;
    const before = list.join();
    applyStatement(list, statement);
    // An operation without effect, such as sorting a sorted list, left the list as it was and is drawn again.
    if (list.join() !== before) statements.push(statement);
  }
  return { statements, list };
}

/** One operation that is valid for the list; undefined if the kind drawn cannot be applied. */
function drawOperation(random: Random, list: readonly number[]): Statement | undefined {
  const kind = pick(random, OPERATIONS);
  switch (kind) {
    case "append":
      return { kind, value: drawOperand(random) };
    case "insert":
      return { kind, index: random.integer(0, list.length + 1), value: drawOperand(random) };
    case "pop":
      if (list.length < 2) return undefined;
      return random.integer(0, 2) === 0 ? { kind } : { kind, index: random.integer(0, list.length) };
    case "remove":
      return list.length < 2 ? undefined : { kind, value: pick(random, list) };
    default:
      return { kind };
  }
}

function drawView(random: Random, list: readonly number[], relevance: Relevance, views: readonly View[]): Core["view"] {
  // With strict relevance the whole list must be seen, which print and sum do; other views are rarely changed by every operation.
  if (relevance === "view" && random.uniform() < 0.7) {
    const whole = views.filter((view) => view === "print" || view === "sum");
    if (whole.length > 0) return { kind: "view", view: pick(random, whole), slice: { start: 0, stop: list.length } };
  }
  const view = pick(random, views);
  if (view === "len") return { kind: "view", view };
  const start = random.integer(0, list.length);
  return { kind: "view", view, slice: { start, stop: random.integer(start + 1, list.length + 1) } };
}
