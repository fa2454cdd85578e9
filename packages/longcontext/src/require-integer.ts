/** The one check of counts and sizes. */
import { OptionError } from "@llmeff/native/errors";

/** @throws {OptionError} unless it is an integer in `low..high`; without `high`, of at least `low` */
export function requireInteger(where: string, name: string, value: number, low: number, high?: number): void {
  if (Number.isSafeInteger(value) && value >= low && value <= (high ?? Number.POSITIVE_INFINITY)) return;
  const range = high === undefined ? `of at least ${low}` : `in ${low}..${high}`;
  throw new OptionError(`[${where}] ${name} must be an integer ${range}; received ${value}.`);
}
