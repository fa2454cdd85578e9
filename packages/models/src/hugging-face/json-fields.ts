/** Fields of a configuration in JSON: present and of their kind, or refused by name. */
import { FormatError } from "@llmeff/tensor";

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Reads fields; one that is absent or null takes the default, and without one it is refused. */
export class JsonFields {
  constructor(
    readonly json: JsonObject,
    readonly where: string,
  ) {}

  fail(message: string): never {
    throw new FormatError(`[loadHuggingFace] ${this.where}: ${message}`);
  }

  has(name: string): boolean {
    return this.json[name] !== undefined && this.json[name] !== null;
  }

  #value<T>(name: string, what: string, fits: (value: unknown) => boolean, fallback: T | undefined): T {
    const value = this.json[name];
    if (value === undefined || value === null) {
      if (fallback === undefined) this.fail(`${name} must be ${what}; it is absent.`);
      return fallback;
    }
    if (!fits(value)) this.fail(`${name} must be ${what}; received ${JSON.stringify(value)}.`);
    return value as T;
  }

  count(name: string, fallback?: number): number {
    return this.#value(name, "a positive integer", (v) => Number.isSafeInteger(v) && (v as number) > 0, fallback);
  }

  /** A number of layers or experts, for each of which something is made before the weights are looked at. */
  multiplicity(name: string, fallback?: number): number {
    const n = this.count(name, fallback);
    if (n > 65_536) this.fail(`${name} must be at most 65536; received ${n}.`);
    return n;
  }

  number(name: string, fallback?: number): number {
    return this.#value(name, "a number", (v) => typeof v === "number" && Number.isFinite(v), fallback);
  }

  flag(name: string, fallback?: boolean): boolean {
    return this.#value(name, "true or false", (v) => typeof v === "boolean", fallback);
  }

  text(name: string, fallback?: string): string {
    return this.#value(name, "a text", (v) => typeof v === "string", fallback);
  }

  object(name: string): JsonObject | undefined {
    return this.has(name) ? this.#value(name, "an object", isObject, undefined) : undefined;
  }

  list(name: string): readonly unknown[] | undefined {
    return this.has(name) ? this.#value<readonly unknown[]>(name, "a list", Array.isArray, undefined) : undefined;
  }

  /** Refuses a field that asks for something that the models here don't have. */
  only(name: string, allowed: unknown, fallback: unknown = allowed): void {
    const value = this.has(name) ? this.json[name] : fallback;
    if (value !== allowed) {
      this.fail(
        `${name} must be ${JSON.stringify(allowed)}, the only one there is here; received ${JSON.stringify(value)}.`,
      );
    }
  }
}
