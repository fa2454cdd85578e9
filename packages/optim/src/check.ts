import { OptionError } from "@llmeff/native";

/** A value in a message: short, and never throwing. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) {
    const items = value.slice(0, 8).map((item) => (Array.isArray(item) ? "an array" : show(item)));
    return `[${[...items, ...(value.length > items.length ? ["…"] : [])].join(", ")}]`;
  }
  if (typeof value === "function") return "a function";
  if (typeof value === "object" && value !== null) return `an object of ${value.constructor?.name ?? "no class"}`;
  return String(value);
}

/** Checks a numeric option; `domain` says in words what `valid` tests. */
export function checkNumber(
  where: string,
  name: string,
  value: unknown,
  domain: string,
  valid: (x: number) => boolean,
): void {
  if (typeof value !== "number" || !valid(value)) {
    throw new OptionError(`[${where}] ${name} must be ${domain}; received ${show(value)}.`);
  }
}

export function checkPositive(where: string, name: string, value: unknown): void {
  checkNumber(where, name, value, "a positive number", (x) => x > 0 && Number.isFinite(x));
}

export function checkNotNegative(where: string, name: string, value: unknown): void {
  checkNumber(where, name, value, "a number of at least 0", (x) => x >= 0 && Number.isFinite(x));
}

/** A number of steps or of something else that is counted. */
export function checkCount(where: string, name: string, value: unknown, least = 0): void {
  checkNumber(where, name, value, `an integer of at least ${least}`, (x) => Number.isSafeInteger(x) && x >= least);
}

/** The factor of a running average. */
export function checkBeta(where: string, name: string, value: unknown): void {
  checkNumber(where, name, value, "a number in [0, 1)", (x) => x >= 0 && x < 1);
}

/** The options of weight decay that the first-order rules have. */
export function checkDecay(
  where: string,
  { weightDecay, decoupled }: { weightDecay: number; decoupled: boolean },
): void {
  checkNotNegative(where, "weightDecay", weightDecay);
  checkBoolean(where, "decoupled", decoupled);
}

export function checkBoolean(where: string, name: string, value: unknown): void {
  if (typeof value !== "boolean")
    throw new OptionError(`[${where}] ${name} must be true or false; received ${show(value)}.`);
}

export function checkOneOf(where: string, name: string, value: unknown, choices: readonly string[]): void {
  if (typeof value !== "string" || !choices.includes(value)) {
    throw new OptionError(
      `[${where}] ${name} must be one of ${choices.map(show).join(", ")}; received ${show(value)}.`,
    );
  }
}

/** Refuses what isn't an object of options; all functions with options come here, most of them by `checkKeys`. */
export function requireOptions(where: string, options: unknown): void {
  if (typeof options === "object" && options !== null && !Array.isArray(options)) return;
  throw new OptionError(`[${where}] options must be an object; received ${show(options)}.`);
}

/** Refuses options that nothing reads, naming the known ones: a misspelt hyper-parameter must not fall back to its default. */
export function checkKeys(where: string, options: object, known: readonly string[]): void {
  requireOptions(where, options);
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) {
      throw new OptionError(`[${where}] unknown option ${show(key)}. Known options: ${known.join(", ")}.`);
    }
  }
}

/** The defaults with the options that are given in their place; other keys of `options` are not for these defaults, and `null` is refused by `checkKeys`. */
export function withDefaults<D extends object>(defaults: D, options: { [K in keyof D]?: unknown } | null): D {
  const given = Object.keys(defaults).filter((key) => options?.[key as keyof D] !== undefined);
  return { ...defaults, ...Object.fromEntries(given.map((key) => [key, options![key as keyof D]])) };
}

/** Refuses an asynchronous function where its result is needed at once; its failure, which nobody will see, must not end the process. */
export function refusePromise(where: string, result: unknown): void {
  if (!(result instanceof Promise)) return;
  result.catch(() => undefined);
  throw new OptionError(`[${where}] expected a function that returns a value; received one that returns a Promise.`);
}
