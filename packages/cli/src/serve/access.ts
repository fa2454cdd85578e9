/** Who may ask: holders of the key, if there is one, and web pages of the origin that was named, if any. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { ApiError } from "./api-error.js";

export interface AccessOptions {
  /** What requests must carry as `Authorization: Bearer …`; default nothing. */
  key?: string | undefined;
  /** Origin of the web pages that may ask (`https://example.org`, or `*`); default none. */
  corsOrigin?: string | undefined;
}

const digest = (text: string) => createHash("sha256").update(text).digest();

export class Access {
  /** Compared instead of the key: of one length, so that the time tells nothing. */
  readonly #digest: Buffer | undefined;
  readonly #origin: string | undefined;

  constructor({ key, corsOrigin }: AccessOptions) {
    this.#digest = key === undefined ? undefined : digest(key);
    this.#origin = corsOrigin;
  }

  /** @throws {ApiError} if the request doesn't carry the key */
  requireKey({ headers }: IncomingMessage): void {
    if (this.#digest === undefined) return;
    const [, given] = /^Bearer +(\S+)$/i.exec(headers.authorization ?? "") ?? [];
    if (given !== undefined && timingSafeEqual(digest(given), this.#digest)) return;
    const message =
      given === undefined
        ? "This server needs an API key: send it as Authorization: Bearer KEY."
        : "The API key is not the one that this server was started with.";
    throw new ApiError(401, message, { code: "invalid_api_key", headers: { "www-authenticate": "Bearer" } });
  }

  /**
   * Refuses pages of other origins. Browsers send such requests with the powers of whoever looks at the page, also to this machine alone, and
   * under a name that a page's owner made lead here.
   *
   * @returns headers that let the page read the answer; none where no page asks
   * @throws {ApiError}
   */
  requireOrigin({ headers: { origin } }: IncomingMessage): Record<string, string> {
    if (origin === undefined) return {};
    if (this.#origin !== "*" && this.#origin !== origin) {
      throw new ApiError(403, "Web pages of this origin may not ask this server. It can be allowed with --cors.");
    }
    return { "access-control-allow-origin": this.#origin, vary: "Origin" };
  }
}

/**
 * What a browser asks before a page's request, and is told. Any header may be sent: clients add some of their own that say what they are, and
 * whether the page may ask is decided by its origin.
 */
export function preflightHeaders({ headers }: IncomingMessage): Record<string, string> {
  const asked = headers["access-control-request-headers"] ?? "Authorization, Content-Type";
  return {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": asked,
    "access-control-max-age": "600",
    vary: "Origin, Access-Control-Request-Headers",
  };
}
