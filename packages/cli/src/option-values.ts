/** Values of the command line that several commands take. */
import { type DeviceChoice, isDeviceChoice } from "@llmeff/tensor";
import { InvalidArgumentError } from "commander";
import { deviceForms } from "./config/fields.js";

/** A number of a kind that `what` says. */
export function number(what: string, test: (value: number) => boolean) {
  return (text: string): number => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (!Number.isFinite(value) || !test(value)) throw new InvalidArgumentError(`expected ${what}.`);
    return value;
  };
}

export const positiveInteger = number("a positive integer", (value) => Number.isSafeInteger(value) && value > 0);
export const wholeNumber = number("an integer of at least 0", (value) => Number.isSafeInteger(value) && value >= 0);

export const portNumber = number(
  "a port, 0..65535",
  (value) => Number.isInteger(value) && value >= 0 && value < 65_536,
);

/** The longest that Node's timers take. */
const mostSeconds = (2 ** 31 - 1) / 1000;
export const seconds = number("seconds, a number ≥ 0", (value) => value >= 0 && value <= mostSeconds);
export const positiveSeconds = number("seconds, a number above 0", (value) => value > 0 && value <= mostSeconds);

export const anyNumber = number("a number", () => true);

export const fraction = number("a number between 0 and 1", (value) => value > 0 && value < 1);

/** `a,b` */
export function pair(text: string): [string, string] {
  const [one = "", other = "", ...more] = text.split(",").map((part) => part.trim());
  if (one === "" || other === "" || more.length > 0)
    throw new InvalidArgumentError("expected two values, as in train,valid.");
  return [one, other];
}

/** `id=bias`, one after another. */
export function logitBias(text: string, before: Record<number, number> = {}): Record<number, number> {
  const [, id, bias] = /^(\d+)=(.+)$/.exec(text) ?? [];
  const value = bias === "-Infinity" ? Number.NEGATIVE_INFINITY : Number(bias?.trim() || Number.NaN);
  if (id === undefined || Number.isNaN(value) || value === Number.POSITIVE_INFINITY)
    throw new InvalidArgumentError("expected ID=NUMBER or ID=-Infinity.");
  return { ...before, [Number(id)]: value };
}

export const deviceHelp = "cpu, cuda, cuda:1, … or auto, a GPU if there is one (default: LLMEFF_DEVICE, else cpu)";
export function device(text: string): DeviceChoice {
  if (!isDeviceChoice(text)) throw new InvalidArgumentError(`expected one of ${deviceForms}.`);
  return text;
}
