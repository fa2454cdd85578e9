/** Values of the command line of `llmeff eval`. */
import type { Prices } from "@llmeff/longcontext";
import { InvalidArgumentError } from "commander";

/** `4096`, `4k` (of 1024) or `1M` (of 1024²), separated by commas. */
export function lengthList(text: string): number[] {
  return text.split(",").map(tokenCount);
}

export function tokenCount(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kKmM]?)\s*$/.exec(text);
  const unit = { "": 1, k: 1024, m: 1024 ** 2 }[match?.[2]?.toLowerCase() ?? ""] ?? Number.NaN;
  const value = match === null ? Number.NaN : Number(match[1]) * unit;
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new InvalidArgumentError("expected numbers of tokens such as 8192, 8k or 1M.");
}

export function nameList(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  if (names.some((name) => name === "")) throw new InvalidArgumentError("expected names separated by commas.");
  return names;
}

/** For an option that may be given several times. */
export function several<T>(parse: (text: string) => T) {
  return (text: string, before: readonly T[] = []): T[] => [...before, parse(text)];
}

/** `0.15,0.6` or `0.15,0.6,0.075`: input, output, cached input for a million tokens. */
export function prices(text: string): Prices {
  const values = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  const [input, output, cachedInput] = values;
  if (values.length < 2 || values.length > 3 || !values.every((value) => value >= 0 && Number.isFinite(value))) {
    throw new InvalidArgumentError("expected INPUT,OUTPUT or INPUT,OUTPUT,CACHED, the prices of a million tokens.");
  }
  return { input: input!, output: output!, ...(cachedInput === undefined ? {} : { cachedInput }) };
}

/** `x-team: research` */
export function header(text: string): [name: string, value: string] {
  const at = text.indexOf(":");
  const name = text.slice(0, at).trim();
  if (at < 1 || !/^[\w-]+$/.test(name)) throw new InvalidArgumentError("expected NAME: VALUE.");
  return [name.toLowerCase(), text.slice(at + 1).trim()];
}

export function jsonObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Told below.
  }
  throw new InvalidArgumentError('expected a JSON object, such as {"reasoning_effort":"low"}.');
}

/** What a score must reach for the command to succeed. */
export interface Threshold {
  task: string;
  score: number;
  /** At this length only; else over all. */
  length?: number;
}

/** `niah_mk2=0.9` or `niah_mk2=0.9@32k` */
export function threshold(text: string): Threshold {
  const match = /^([\w-]+)=([\d.]+)(?:@(.+))?$/.exec(text);
  const score = Number(match?.[2]);
  if (match === null || !(score >= 0 && score <= 1)) {
    throw new InvalidArgumentError("expected TASK=SCORE or TASK=SCORE@LENGTH with a score in 0..1.");
  }
  return { task: match[1]!, score, ...(match[3] === undefined ? {} : { length: tokenCount(match[3]) }) };
}
