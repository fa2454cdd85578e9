/** What a solver found. */
export interface Solution {
  answer: string | string[] | undefined;
  problems: string[];
}

export function sameAnswer(a: string | string[], b: string | string[]): boolean {
  if (typeof a === "string" || typeof b === "string") return a === b;
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** The same for answers whose order means nothing: the found one in the target's order where both have the same members. */
export function inOrderOf(target: string | string[], found: readonly string[]): string[] {
  if (typeof target === "string") return [...found];
  const same = target.length === found.length && target.every((value) => found.includes(value));
  return same ? [...target] : [...found];
}

export function occurrences(text: string, part: string): number {
  let count = 0;
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) count++;
  return count;
}

/** The last line that begins so, without the beginning. */
export function lastLineAfter(text: string, beginning: string): string | undefined {
  const at = text.lastIndexOf(`\n${beginning}`);
  if (at < 0) return undefined;
  const from = at + 1 + beginning.length;
  const end = text.indexOf("\n", from);
  return text.slice(from, end < 0 ? text.length : end);
}
