/** The kinds of values that configs are made of; each says what it expects and what it got. */
import { type DeviceChoice, isDeviceChoice } from "@llmeff/tensor";
import { z } from "zod";
import { nearestName } from "./edit-distance.js";

/** A value in a message: short, and on one line. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  let text: string;
  try {
    text = JSON.stringify(value) ?? String(value);
  } catch {
    return "a value that is nested too deeply to be shown"; // what strangers send may be, as a config hardly is
  }
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

const expecting = (what: string) => ({
  error: (issue: { input?: unknown }) => `expected ${what}; received ${show(issue.input)}.`,
});

export const numberWhere = (what: string, test: (value: number) => boolean) =>
  z.custom<number>((value) => typeof value === "number" && Number.isFinite(value) && test(value), expecting(what));

export const positiveInteger = () =>
  numberWhere("a positive integer", (value) => Number.isSafeInteger(value) && value > 0);
export const wholeNumber = () =>
  numberWhere("an integer of at least 0", (value) => Number.isSafeInteger(value) && value >= 0);
export const positiveNumber = () => numberWhere("a positive number", (value) => value > 0);
export const nonNegativeNumber = () => numberWhere("a number of at least 0", (value) => value >= 0);
export const finiteNumber = () => numberWhere("a number", () => true);
/** 2ⁿ with an integer n, in a range. */
export const powerOfTwo = (range: string, inRange: (value: number) => boolean) =>
  numberWhere(
    `a power of two ${range}`,
    (value) => value > 0 && 2 ** Math.round(Math.log2(value)) === value && inRange(value),
  );
/** In [0, 1), as decay rates are. */
export const decayRate = () => numberWhere("a number in [0, 1)", (value) => value >= 0 && value < 1);
/** In (0, 1), as shares of data are. */
export const properFraction = () => numberWhere("a number between 0 and 1", (value) => value > 0 && value < 1);
/** In [0, 1]. */
export const ratio = () => numberWhere("a number in 0..1", (value) => value >= 0 && value <= 1);

export const flag = () => z.custom<boolean>((value) => typeof value === "boolean", expecting("true or false"));
export const text = (what = "a text") =>
  z.custom<string>((value) => typeof value === "string" && value !== "", expecting(what));
/** A name that is also a folder's: no separators, no leading dot. */
export const folderName = () =>
  z.custom<string>(
    (value) => typeof value === "string" && /^[\p{L}\p{N}_][\p{L}\p{N}_. -]*$/u.test(value),
    expecting("a name of letters, digits, spaces, dots, dashes and underscores (it names a folder)"),
  );

function suggestion(value: unknown, names: readonly string[]): string {
  const near = typeof value === "string" ? nearestName(value, names) : undefined;
  return near === undefined ? "" : ` Did you mean "${near}"?`;
}

export function oneOf<const T extends readonly string[]>(values: T) {
  const list = values.map((value) => `"${value}"`).join(", ");
  return z.custom<T[number]>((value) => typeof value === "string" && values.includes(value), {
    error: ({ input }) => `expected one of ${list}; received ${show(input)}.${suggestion(input, values)}`,
  });
}

/** `true`, `false` or one of these. */
export function flagOrOneOf<const T extends readonly string[]>(values: T) {
  const list = values.map((value) => `"${value}"`).join(", ");
  return z.custom<boolean | T[number]>(
    (value) => typeof value === "boolean" || (typeof value === "string" && values.includes(value)),
    {
      error: ({ input }) =>
        `expected true, false or one of ${list}; received ${show(input)}.${suggestion(input, values)}`,
    },
  );
}

/** `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, … */
export const deviceChoice = () => z.custom<DeviceChoice>(isDeviceChoice, expecting(deviceForms));
export const deviceForms = '"auto", "cpu", "cuda", "cuda:0", "cuda:1", …';

/** An object with these keys and no others; for a key that it doesn't know, the nearest that it does. */
export function object<S extends z.core.$ZodLooseShape>(shape: S) {
  const known = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code !== "unrecognized_keys") return `expected an object; received ${show(issue.input)}.`;
      return (issue as unknown as { keys: string[] }).keys.map((key) => unknownKey(key, known)).join("\n");
    },
  });
}

function unknownKey(key: string, known: readonly string[]): string {
  const near = nearestName(key, known);
  return `unknown key "${key}". ${near ? `Did you mean "${near}"?` : `Known keys: ${known.join(", ")}.`}`;
}

/** At least one of something. */
export function list<T extends z.ZodType>(item: T, what: string) {
  const error = expecting(`a list of ${what}`);
  return z.array(item, error).min(1, error);
}

/** Objects told apart by the key `kind`. */
export function byKind<const T extends readonly [z.core.$ZodTypeDiscriminable, ...z.core.$ZodTypeDiscriminable[]]>(
  kinds: readonly string[],
  options: T,
) {
  return z.discriminatedUnion("kind", options, {
    error: ({ input }) => {
      if (typeof input !== "object" || input === null)
        return `expected an object with "kind"; received ${show(input)}.`;
      const { kind } = input as { kind?: unknown };
      const choices = kinds.map((name) => `"${name}"`).join(", ");
      return `expected one of ${choices}; received ${show(kind)}.${suggestion(kind, kinds)}`;
    },
  });
}

/** A value of one of two forms, which a test tells apart; its problems are those of its form. */
export function whichever<A extends z.ZodType, B extends z.ZodType>(
  test: (value: unknown) => boolean,
  one: A,
  other: B,
) {
  return z.custom<z.output<A> | z.output<B>>().superRefine((value, context) => {
    const result = (test(value) ? one : other).safeParse(value);
    for (const issue of result.error?.issues ?? [])
      context.addIssue({ ...issue } as Parameters<typeof context.addIssue>[0]);
  });
}
