/** What a reply that is no answer means: to be tried again, counted, or the end of the run. */
import type { IncomingHttpHeaders } from "node:http";
import { ModelError, type RateLimitState } from "./eval-model.js";

const contextPattern =
  /context[ _-]?(?:length|window|size)|maximum (?:context|sequence|prompt|input) length|max_model_len|(?:prompt|input|request)[^.]{0,40} too (?:long|large)|too many (?:input )?tokens|reduce the length|exceeds? [^.]{0,60}(?:context|token limit|number of tokens)/i;
const filterPattern = /content[ _-]?(?:filter|policy|management)|safety (?:system|policy|filter)|responsible ai/i;
const quotaPattern = /insufficient[ _]quota|exceeded your current quota|billing|credit balance|payment/i;
const unknownModelPattern =
  /model[ _]not[ _]found|model [^.]{0,80}(?:does not exist|not found|not available)|unknown model/i;

const retried = new Set([408, 409, 425, 429]);

export interface FailureContext {
  url: URL;
  model: string;
  /** How to say which environment variable holds the key. */
  keyAdvice: string;
}

/** The error of a reply with a status other than 2xx, or of an `error` object inside a stream (status 200). */
export function failureOf(
  status: number,
  headers: IncomingHttpHeaders,
  body: string,
  { url, model, keyAdvice }: FailureContext,
): ModelError {
  const said = messageIn(body);
  const facts = { status, ...retryAfter(headers) };
  const at = `[${url.host}]`;
  const answered = `${at} answered ${status}${said === "" ? "" : `: ${said}`}`;
  if (quotaPattern.test(body) && (status === 429 || status === 402 || status === 403)) {
    return new ModelError("stop", `${answered}. The account has no money or quota left.`, facts);
  }
  if (status === 401 || status === 403) return new ModelError("stop", `${answered}. ${keyAdvice}`, facts);
  if (status === 402) return new ModelError("stop", `${answered}. The account has no money left.`, facts);
  if (status < 500 && unknownModelPattern.test(body)) {
    return new ModelError("stop", `${answered}. Is "${model}" a name that GET ${url.origin}/v1/models lists?`, facts);
  }
  if (status === 404) {
    return new ModelError(
      "stop",
      `${answered}. Check the address (it usually ends in /v1) and the model's name "${model}".`,
      facts,
    );
  }
  if (status < 500 && contextPattern.test(body)) return new ModelError("contextExceeded", `${answered}`, facts);
  if (status < 500 && filterPattern.test(body)) return new ModelError("refused", `${answered}`, facts);
  if (status >= 500 || retried.has(status)) {
    // A server that fails may have too many requests, whatever it calls that; if not, nothing is lost but some time.
    return new ModelError("retry", answered, { ...facts, overloaded: status === 429 || status >= 500 });
  }
  return new ModelError("error", answered, facts);
}

/** The message of an error object in any of the usual forms, else the beginning of the text. */
export function messageIn(body: string): string {
  let text = body;
  try {
    const value = JSON.parse(body) as Record<string, unknown> | null;
    const error = value?.error ?? value;
    const message = typeof error === "string" ? error : (error as Record<string, unknown> | null)?.message;
    if (typeof message === "string") text = message;
  } catch {
    // An HTML page or plain text.
  }
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > 300 ? `${line.slice(0, 300)}…` : line;
}

/** `retry-after-ms` before `retry-after`, which is in seconds or a date. */
function retryAfter(headers: IncomingHttpHeaders): { retryAfterMs?: number } {
  const ms = Number(headers["retry-after-ms"]);
  if (headers["retry-after-ms"] !== undefined && ms >= 0) return { retryAfterMs: ms };
  const text = headers["retry-after"];
  if (text === undefined) return {};
  const seconds = Number(text);
  const wait = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(wait) ? { retryAfterMs: Math.max(0, wait) } : {};
}

/** What the headers `x-ratelimit-…` say. */
export function rateLimitOf(headers: IncomingHttpHeaders): RateLimitState | undefined {
  const state: RateLimitState = {};
  for (const [what, remaining, reset] of [
    ["requests", "remainingRequests", "resetRequestsMs"],
    ["tokens", "remainingTokens", "resetTokensMs"],
  ] as const) {
    const left = headers[`x-ratelimit-remaining-${what}`];
    const wait = durationMs(headers[`x-ratelimit-reset-${what}`]);
    if (left !== undefined && Number(left) >= 0) state[remaining] = Number(left);
    if (wait !== undefined) state[reset] = wait;
  }
  return Object.keys(state).length === 0 ? undefined : state;
}

const unitMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `6m0s`, `1.2s`, `120ms`, or seconds without a unit. */
function durationMs(text: string | string[] | undefined): number | undefined {
  if (typeof text !== "string") return undefined;
  if (text.trim() !== "" && Number.isFinite(Number(text))) return Number(text) * 1000;
  if (!/^(?:[\d.]+(?:ms|[smhd]))+$/.test(text)) return undefined;
  return Array.from(text.matchAll(/([\d.]+)(ms|[smhd])/g)).reduce(
    (sum, [, n, unit]) => sum + Number(n) * unitMs[unit!]!,
    0,
  );
}
