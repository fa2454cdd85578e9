/**
 * The small part of Python in which Latent List programs are written, executed as Python does it: `insert` clamps, negative indices count
 * from the end, `sort` is numeric, slices clamp and may have a step, and errors have Python's names.
 */

export type PythonError = "IndexError" | "ValueError" | "TypeError" | "SyntaxError";

export const VIEWS = ["print", "sum", "min", "max", "len"] as const;

export type View = (typeof VIEWS)[number];

export interface Slice {
  start?: number | undefined;
  stop?: number | undefined;
  step?: number | undefined;
}

export type Statement =
  | { kind: "assign"; values: number[] }
  | { kind: "append" | "remove"; value: number }
  | { kind: "insert"; index: number; value: number }
  | { kind: "pop"; index?: number | undefined }
  | { kind: "sort" | "reverse" | "print-text" }
  | { kind: "view"; view: View; slice?: Slice | undefined };

export interface ProgramResult {
  /** Text of the view line; what filler prints is not recorded. */
  output: string | null;
  /** The list at the end. */
  final: number[] | null;
  error: PythonError | null;
}

const INTEGER = "-?\\d+";
const ASSIGN = new RegExp(`^a = \\[(?:${INTEGER}(?:, ?${INTEGER})*)?\\]$`);
const CALL = /^a\.(append|insert|pop|remove|sort|reverse)\(([^()]*)\)$/;
const VIEW = /^(print|sum|min|max|len)\(a(?:\[([^[\]]*)\])?\)$/;
const PRINT_TEXT = /^print\("[^"\\]*"\)$/;
const SLICE = new RegExp(`^(${INTEGER})?:(${INTEGER})?(?::(${INTEGER})?)?$`);
const OPERANDS = {
  append: [1, 1],
  insert: [2, 2],
  pop: [0, 1],
  remove: [1, 1],
  sort: [0, 0],
  reverse: [0, 0],
} as const;

/** `-0` is the integer 0 in Python. */
const toInteger = (text: string): number => Number(text) + 0;

/** One line without `>>> ` as a statement, or the error that Python would raise for its form. */
export function parseStatement(line: string): Statement | PythonError {
  if (ASSIGN.test(line)) return { kind: "assign", values: (line.match(/-?\d+/g) ?? []).map(toInteger) };
  if (PRINT_TEXT.test(line)) return { kind: "print-text" };
  const call = CALL.exec(line);
  if (call !== null) return parseCall(call[1] as keyof typeof OPERANDS, call[2]!);
  const view = VIEW.exec(line);
  return view === null ? "SyntaxError" : parseView(view[1] as View, view[2]);
}

function parseCall(kind: keyof typeof OPERANDS, text: string): Statement | PythonError {
  const operands = text.trim() === "" ? [] : text.split(",").map((operand) => operand.trim());
  if (operands.some((operand) => !/^-?\d+$/.test(operand))) return "SyntaxError";
  const [least, most] = OPERANDS[kind];
  if (operands.length < least || operands.length > most) return "TypeError";
  const [first, second] = operands.map(toInteger);
  if (kind === "append" || kind === "remove") return { kind, value: first! };
  if (kind === "insert") return { kind, index: first!, value: second! };
  return kind === "pop" ? { kind, index: first } : { kind };
}

function parseView(view: View, text: string | undefined): Statement | PythonError {
  if (text === undefined) return { kind: "view", view };
  const match = SLICE.exec(text);
  if (match === null) return "SyntaxError";
  const [start, stop, step] = match.slice(1).map((part) => (part === undefined ? undefined : toInteger(part)));
  return { kind: "view", view, slice: { start, stop, step } };
}

/** Runs a statement that changes `list`, in place; views and texts change nothing. */
export function applyStatement(list: number[], statement: Statement): PythonError | null {
  switch (statement.kind) {
    case "assign":
      list.length = 0;
      for (const value of statement.values) list.push(value);
      return null;
    case "append":
      list.push(statement.value);
      return null;
    case "insert":
      // A start beyond either end is clamped by splice exactly as Python clamps it.
      list.splice(statement.index, 0, statement.value);
      return null;
    case "pop":
      return pop(list, statement.index ?? -1);
    case "remove": {
      const at = list.indexOf(statement.value);
      if (at < 0) return "ValueError";
      list.splice(at, 1);
      return null;
    }
    case "sort":
      list.sort((a, b) => a - b);
      return null;
    case "reverse":
      list.reverse();
      return null;
    default:
      return null;
  }
}

function pop(list: number[], index: number): PythonError | null {
  const at = index < 0 ? list.length + index : index;
  if (at < 0 || at >= list.length) return "IndexError";
  list.splice(at, 1);
  return null;
}

/** `list[start:stop:step]`; undefined for a zero step. */
function takeSlice(list: readonly number[], { start, stop, step = 1 }: Slice): number[] | undefined {
  if (step === 0) return undefined;
  const n = list.length;
  const [low, high] = step > 0 ? [0, n] : [-1, n - 1];
  const bound = (value: number | undefined, fallback: number): number =>
    value === undefined ? fallback : Math.min(high, Math.max(low, value < 0 ? value + n : value));
  const from = bound(start, step > 0 ? low : high);
  const to = bound(stop, step > 0 ? high : low);
  const taken: number[] = [];
  for (let i = from; step > 0 ? i < to : i > to; i += step) taken.push(list[i]!);
  return taken;
}

export function printList(list: readonly number[]): string {
  return `[${list.join(", ")}]`;
}

/** What the view shows. */
export function evaluateView(
  list: readonly number[],
  { view, slice }: { view: View; slice?: Slice | undefined },
): { output: string } | { error: PythonError } {
  const seen = slice === undefined ? list : takeSlice(list, slice);
  if (seen === undefined) return { error: "ValueError" };
  if (view === "print") return { output: printList(seen) };
  if (view === "len") return { output: String(seen.length) };
  if (view === "sum") return { output: String(seen.reduce((sum, value) => sum + value, 0)) };
  if (seen.length === 0) return { error: "ValueError" };
  return { output: String(view === "min" ? Math.min(...seen) : Math.max(...seen)) };
}

/** Runs statements; the first error stops them. */
export function runStatements(statements: Iterable<Statement | PythonError>): ProgramResult {
  const list: number[] = [];
  let output: string | null = null;
  const failed = (error: PythonError): ProgramResult => ({ output: null, final: null, error });
  for (const statement of statements) {
    if (typeof statement === "string") return failed(statement);
    if (statement.kind === "view") {
      const shown = evaluateView(list, statement);
      if ("error" in shown) return failed(shown.error);
      output = shown.output;
    } else {
      const error = applyStatement(list, statement);
      if (error !== null) return failed(error);
    }
  }
  return { output, final: list, error: null };
}

function* parsed(lines: Iterable<string>): Generator<Statement | PythonError> {
  for (const line of lines) yield parseStatement(line);
}

/**
 * Runs a program line by line; the first error stops it and leaves output and list null.
 *
 * @param lines - without `>>> `; the last view line gives the output
 */
export function runProgram(lines: Iterable<string>): ProgramResult {
  return runStatements(parsed(lines));
}
