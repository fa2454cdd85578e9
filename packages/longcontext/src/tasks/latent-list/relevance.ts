/** Which statements of a program matter, and which blocks do not. */
import { type PythonError, parseStatement, runProgram, runStatements, type Statement } from "./program.js";

const same = (a: readonly number[] | null, b: readonly number[] | null): boolean =>
  a !== null && b !== null && a.length === b.length && a.every((value, i) => value === b[i]);

/**
 * For each operation whether deleting that one alone changes the result or raises.
 *
 * @param lines - initial assignment, operations, view
 * @param relevance - `state` compares the final list, `view` what the view shows
 */
export function relevantOperations(lines: readonly string[], relevance: "state" | "view"): boolean[] {
  return relevantStatements(lines.map(parseStatement), relevance);
}

/** The same for statements. */
export function relevantStatements(
  statements: readonly (Statement | PythonError)[],
  relevance: "state" | "view",
): boolean[] {
  const whole = runStatements(statements);
  return statements.slice(1, -1).map((_, k) => {
    const rest = runStatements(statements.filter((_statement, i) => i !== k + 1));
    if (rest.error !== null) return true;
    return relevance === "state" ? !same(whole.final, rest.final) : rest.output !== whole.output;
  });
}

/** Whether the block runs after the prefix without error and leaves the list as it was. */
export function isNeutral(prefix: readonly string[], block: readonly string[]): boolean {
  const before = runProgram(prefix);
  return before.error === null && same(before.final, runProgram([...prefix, ...block]).final);
}
