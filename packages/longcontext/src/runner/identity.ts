/** What makes two requests the same one. */
import { createHash } from "node:crypto";
import type { Message } from "../sample.js";

/** JSON with the keys of every object in order of their UTF-16 units (as RFC 8785); keys without a value are left out. */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "null";
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const fields = Object.entries(value)
    .filter(([, field]) => field !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([name, field]) => `${JSON.stringify(name)}:${canonicalJson(field)}`);
  return `{${fields.join(",")}}`;
}

export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Hash of the prompt's messages; what results keep of a prompt of millions of tokens. */
export function promptSha256(messages: readonly Message[]): string {
  const hash = createHash("sha256");
  // By parts: no copy of a prompt of many megabytes is made.
  for (const { role, content } of messages) hash.update(`${role}\n${Buffer.byteLength(content)}\n`).update(content);
  return hash.digest("hex");
}

/** All that a reply depends on. */
export interface RequestIdentity {
  model: string;
  fingerprint?: Readonly<Record<string, unknown>> | undefined;
  promptSha256: string;
  maxTokens: number;
  temperature?: number | undefined;
  seed?: number | undefined;
  stop?: readonly string[] | undefined;
  /** Repeats of one request are requests of their own. */
  trial: number;
}

/** Key of a request in the cache of replies, and its idempotency key at the endpoint. */
export function requestKey(identity: RequestIdentity): string {
  return sha256(canonicalJson(identity));
}
