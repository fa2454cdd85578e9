/** Checks of arguments that the statistics share. */
import { NonFiniteError, OptionError } from "@llmeff/native/errors";

/** @throws {NonFiniteError} naming the first value that is NaN or infinite */
export function requireFinite(where: string, name: string, values: ArrayLike<number>): void {
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) {
      throw new NonFiniteError(
        `[${where}] ${name}[${i}] must be a finite number; received ${values[i]}. Errors are counted apart, not as scores.`,
      );
    }
  }
}

/** @throws {OptionError} unless all values are finite and above 0 */
export function requirePositive(where: string, name: string, values: ArrayLike<number>): void {
  requireFinite(where, name, values);
  for (let i = 0; i < values.length; i++) {
    if (values[i]! <= 0) throw new OptionError(`[${where}] ${name}[${i}] must be positive; received ${values[i]}.`);
  }
}

/** @throws {OptionError} unless both have the same length, of at least `minimum` */
export function requireSameLength(
  where: string,
  names: readonly [string, string],
  a: ArrayLike<unknown>,
  b: ArrayLike<unknown>,
  minimum = 0,
): void {
  if (a.length !== b.length || a.length < minimum) {
    const least = minimum > 0 ? ` of at least ${minimum}` : "";
    throw new OptionError(
      `[${where}] ${names[0]} and ${names[1]} must have one length${least}; received ${a.length} and ${b.length}.`,
    );
  }
}
