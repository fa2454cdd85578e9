/** Plain JSON values: merging overrides into a base, and finding what differs. */
import type { JsonObject } from "@llmeff/data";
import { formatPath } from "./read-config.js";

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** JSON merge patch (RFC 7396): objects are merged key by key, anything else is replaced, `null` removes a key. */
export function mergePatch(base: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const merged: Record<string, unknown> = isObject(base) ? { ...base } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = mergePatch(merged[key], value);
  }
  return merged;
}

export interface Difference {
  path: string;
  a: unknown;
  b: unknown;
}

/** Where two JSON values differ, leaf by leaf. */
export function differences(a: unknown, b: unknown, path: readonly PropertyKey[] = []): Difference[] {
  if (isObject(a) && isObject(b)) {
    const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])];
    return keys.flatMap((key) => differences(a[key], b[key], [...path, key]));
  }
  if (Array.isArray(a) && Array.isArray(b) && a.length === b.length) {
    return a.flatMap((value, i) => differences(value, b[i], [...path, i]));
  }
  return JSON.stringify(a) === JSON.stringify(b) ? [] : [{ path: formatPath(path), a, b }];
}

/** What JSON makes of a value: absent keys instead of undefined ones. */
export function toJson<T>(value: T): JsonObject {
  return JSON.parse(JSON.stringify(value)) as JsonObject;
}
