/** The meaning of `VAR X = 123` and `VAR X = VAR Y`: strictly one line after the other. */

const ASSIGNMENT = /^VAR (\w+) = (?:VAR (\w+)|(\S+)) *$/;

/**
 * Names that hold `value` at the end, in order of first assignment. Lines that assign nothing are passed over; a copy of a variable that
 * has no value yet leaves the target without one.
 */
export function holdersOf(lines: Iterable<string>, value: string): string[] {
  const state = new Map<string, string | undefined>();
  for (const line of lines) {
    const match = ASSIGNMENT.exec(line);
    if (match === null) continue;
    const [, variable, source, written] = match;
    state.set(variable!, source === undefined ? written : state.get(source));
  }
  return [...state].filter(([, held]) => held === value).map(([name]) => name);
}
