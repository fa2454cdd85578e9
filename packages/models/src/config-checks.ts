/** Checks of configurations: each refuses with the name of the field, what it must be and what came. */
import { OptionError } from "@llmeff/tensor";

/** A value of a configuration for a message; JSON has no NaN. */
export function show(value: unknown): string {
  return typeof value === "string" || typeof value === "object" ? JSON.stringify(value) : String(value);
}

export function refuse(name: string, expected: string, value: unknown): never {
  throw new OptionError(`[TransformerConfig] ${name} must be ${expected}; received ${show(value)}.`);
}

export function checkPositive(name: string, value: unknown): void {
  if (!Number.isSafeInteger(value) || (value as number) <= 0) refuse(name, "a positive integer", value);
}

export function checkCount(name: string, value: unknown): void {
  if (!Number.isSafeInteger(value) || (value as number) < 0) refuse(name, "an integer of at least 0", value);
}

export function checkPositiveNumber(name: string, value: unknown): void {
  if (typeof value !== "number" || !(value > 0 && Number.isFinite(value))) refuse(name, "a positive number", value);
}

export function checkFinite(name: string, value: unknown): void {
  if (typeof value !== "number" || !Number.isFinite(value)) refuse(name, "a finite number", value);
}

export function checkNonNegative(name: string, value: unknown): void {
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0) refuse(name, "a finite number ≥ 0", value);
}

export function checkFlag(name: string, value: unknown): void {
  if (typeof value !== "boolean") refuse(name, "true or false", value);
}

export function checkObject(name: string, value: unknown): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(name, "an object", value);
}

/** `"a" or "b"`, `"a", "b" or "c"`. */
export function checkChoice(name: string, value: unknown, choices: readonly string[]): void {
  if (typeof value === "string" && choices.includes(value)) return;
  const quoted = choices.map((choice) => JSON.stringify(choice));
  refuse(name, `${quoted.slice(0, -1).join(", ")} or ${quoted.at(-1)}`, value);
}

/** Refuses keys that nobody would read: a misspelt option must not become a default unseen. */
export function checkKeys(name: string, value: object, known: readonly string[]): void {
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const near = known.find((other) => other.toLowerCase() === key.toLowerCase());
    const advice = near === undefined ? `Known are ${known.join(", ")}.` : `Is ${near} meant?`;
    throw new OptionError(`[TransformerConfig] ${name} has an unknown key ${JSON.stringify(key)}. ${advice}`);
  }
}
