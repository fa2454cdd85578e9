/**
 * Filler of Latent List: blocks of statements that leave the list as they found it. A block is drawn as a recipe, without looking at a list;
 * its text is written from the list at its final place.
 */
import type { Random } from "@llmeff/data";
import { applyStatement, type Statement } from "./program.js";

/** Operands of all statements, filler or not. */
export const OPERAND_LIMIT = 4000;
const DEEPEST = 3;

export const drawOperand = (random: Random): number => random.integer(-OPERAND_LIMIT, OPERAND_LIMIT + 1);

type Pair = "append-pop" | "insert-pop" | "pop-insert" | "pop-append" | "insert-reverse-remove";

const PAIRS: readonly Pair[] = ["append-pop", "insert-pop", "pop-insert", "pop-append", "insert-reverse-remove"];

interface CancelRecipe {
  kind: "cancel";
  pair: Pair;
  value: number;
  /** Place in the list as a share of its length. */
  place: number;
  /** Stands between the two halves. */
  inner?: Recipe | undefined;
}

export type Recipe = { kind: "text" | "reverse"; count: number } | CancelRecipe;

export function drawRecipe(random: Random): Recipe {
  const kind = random.integer(0, 3);
  if (kind === 0) return { kind: "text", count: random.integer(1, 5) };
  if (kind === 1) return { kind: "reverse", count: 2 * random.integer(1, 4) };
  return drawCancelling(random, 1);
}

function drawCancelling(random: Random, depth: number): Recipe {
  const recipe: CancelRecipe = {
    kind: "cancel",
    pair: PAIRS[random.integer(0, PAIRS.length)]!,
    value: drawOperand(random),
    place: random.uniform(),
  };
  const nested = random.integer(0, 3) === 0;
  return nested && depth < DEEPEST ? { ...recipe, inner: drawCancelling(random, depth + 1) } : recipe;
}

/** Lines of the block at a place where the list is `list`; the list is the same afterwards. */
export function writeRecipe(recipe: Recipe, list: number[], lines: string[]): void {
  if (recipe.kind !== "cancel") {
    const line = recipe.kind === "text" ? 'print("Do nothing.")' : "a.reverse()";
    for (let i = 0; i < recipe.count; i++) lines.push(line);
    return;
  }
  const [first, second] = halves(recipe, list);
  for (const statement of first) run(statement, list, lines);
  if (recipe.inner !== undefined) writeRecipe(recipe.inner, list, lines);
  for (const statement of second) run(statement, list, lines);
}

/** What is done and what undoes it. An inner block may stand where an outer one has emptied the list: there nothing can be popped. */
function halves(recipe: CancelRecipe, list: readonly number[]): [Statement[], Statement[]] {
  const { value, place } = recipe;
  const pair = list.length === 0 && recipe.pair.startsWith("pop") ? "append-pop" : recipe.pair;
  const gap = Math.floor(place * (list.length + 1));
  const at = Math.floor(place * list.length);
  switch (pair) {
    case "append-pop":
      return [[{ kind: "append", value }], [{ kind: "pop" }]];
    case "insert-pop":
      return [[{ kind: "insert", index: gap, value }], [{ kind: "pop", index: gap }]];
    case "pop-insert":
      return [[{ kind: "pop", index: at }], [{ kind: "insert", index: at, value: list[at]! }]];
    case "pop-append":
      return [[{ kind: "pop" }], [{ kind: "append", value: list.at(-1)! }]];
    case "insert-reverse-remove": {
      const fresh = absentValue(value, list);
      const reverse: Statement = { kind: "reverse" };
      return [
        [{ kind: "insert", index: gap, value: fresh }, reverse],
        [reverse, { kind: "remove", value: fresh }],
      ];
    }
  }
}

/** The next operand that is not in the list, for `remove` takes the first equal element. */
function absentValue(value: number, list: readonly number[]): number {
  let fresh = value;
  while (list.includes(fresh)) fresh = fresh === OPERAND_LIMIT ? -OPERAND_LIMIT : fresh + 1;
  return fresh;
}

export function writeStatement(statement: Statement): string {
  switch (statement.kind) {
    case "append":
    case "remove":
      return `a.${statement.kind}(${statement.value})`;
    case "insert":
      return `a.insert(${statement.index}, ${statement.value})`;
    case "pop":
      return statement.index === undefined ? "a.pop()" : `a.pop(${statement.index})`;
    case "assign":
      return `a = [${statement.values.join(", ")}]`;
    case "view":
      return writeView(statement);
    case "print-text":
      return 'print("Do nothing.")';
    default:
      return `a.${statement.kind}()`;
  }
}

function writeView({ view, slice }: Statement & { kind: "view" }): string {
  return slice === undefined ? `${view}(a)` : `${view}(a[${slice.start}:${slice.stop}])`;
}

function run(statement: Statement, list: number[], lines: string[]): void {
  applyStatement(list, statement);
  lines.push(writeStatement(statement));
}
