/**
 * The HTTP side of a server: listening, routes, access, time limits, errors as JSON, and an end in good order. It stands on Node's own `http`: of
 * four routes a framework would take over little, and what matters here (back-pressure, clients that leave, the end) is said to the socket's
 * own streams.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { IoError } from "@llmeff/native/errors";
import { Access, type AccessOptions, preflightHeaders } from "./access.js";
import { ApiError } from "./api-error.js";
import { ClientGone, Exchange } from "./exchange.js";

export interface Endpoint {
  method: "GET" | "POST";
  /** Whether it is answered without a key. */
  open?: boolean;
  handle(exchange: Exchange): Promise<void>;
}

export interface HttpServiceOptions extends AccessOptions {
  /** Default 127.0.0.1: this machine alone. */
  host?: string | undefined;
  /** Default 8000; 0 takes a free one. */
  port?: number | undefined;
  /** Seconds for a reply, waiting included; default 600. */
  timeoutSeconds?: number | undefined;
  /** Seconds for a client to read what it was sent of a stream, before it is left; default 60. */
  stallSeconds?: number | undefined;
  /** Is told of failures that aren't the client's. */
  onFailure?: ((error: Error) => void) | undefined;
}

export class HttpService implements AsyncDisposable {
  /** `http://127.0.0.1:8000` */
  readonly url: string;
  readonly #server: Server;
  readonly #access: Access;
  readonly #timeoutMs: number;
  readonly #stallMs: number;
  readonly #onFailure: (error: Error) => void;
  readonly #exchanges = new Set<Exchange>();
  #stopping = false;
  /** Called when the last exchange has ended. */
  #onIdle: (() => void) | undefined;

  /** @param server - listens already */
  private constructor(
    server: Server,
    private readonly endpoints: Readonly<Record<string, Endpoint>>,
    options: HttpServiceOptions,
  ) {
    const { timeoutSeconds = 600, stallSeconds = 60, onFailure = () => {} } = options;
    const { address, family, port } = server.address() as AddressInfo;
    this.url = `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
    this.#access = new Access(options);
    this.#timeoutMs = timeoutSeconds * 1000;
    this.#stallMs = stallSeconds * 1000;
    this.#onFailure = onFailure;
    this.#server = server.on("request", (request, response) => void this.#serve(request, response));
  }

  /**
   * @param endpoints - by path
   * @throws {IoError} if the address can't be listened on
   */
  static async listen(
    endpoints: Readonly<Record<string, Endpoint>>,
    options: HttpServiceOptions = {},
  ): Promise<HttpService> {
    const { host = "127.0.0.1", port = 8000 } = options;
    const server = createServer().listen(port, host);
    await once(server, "listening").catch((cause: Error) => {
      throw new IoError(`[serve] ${host}:${port} can't be listened on: ${cause.message}.`, { cause });
    });
    return new HttpService(server, endpoints, options);
  }

  /** Takes no further requests, and ends when those that are there have been answered; after the time given it ends them. */
  async close(graceSeconds = 0): Promise<void> {
    this.#stopping = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const endAll = () => {
      for (const exchange of this.#exchanges) exchange.abort(stopped());
    };
    const late = setTimeout(endAll, graceSeconds * 1000);
    if (this.#exchanges.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    clearTimeout(late);
    this.#server.closeAllConnections();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange = new Exchange(request, response, this.#stallMs);
    this.#exchanges.add(exchange);
    const timer = setTimeout(() => {
      const message = `The reply took longer than the ${this.#timeoutMs / 1000} s that this server gives it.`;
      exchange.abort(new ApiError(504, message, { code: "timeout" }));
    }, this.#timeoutMs);
    try {
      Object.assign(exchange.headers, this.#access.requireOrigin(request));
      if (this.#stopping) throw stopped();
      await this.#route(exchange);
    } catch (error) {
      this.#fail(exchange, error as Error);
    } finally {
      // Until the client has all of it: neither the end nor a client that doesn't read may leave a part behind.
      await exchange.delivered();
      clearTimeout(timer);
      this.#exchanges.delete(exchange);
      if (this.#exchanges.size === 0) this.#onIdle?.();
    }
  }

  async #route(exchange: Exchange): Promise<void> {
    const { request } = exchange;
    const [path = ""] = (request.url ?? "").split("?", 1);
    const endpoint = Object.hasOwn(this.endpoints, path) ? this.endpoints[path] : undefined;
    // A preflight carries no key; it passes where its origin does.
    if (request.method === "OPTIONS" && request.headers.origin !== undefined) {
      exchange.sendNothing(preflightHeaders(request));
      return;
    }
    if (!endpoint?.open) this.#access.requireKey(request);
    if (endpoint === undefined) {
      throw new ApiError(404, `There is no ${path}; this server has ${Object.keys(this.endpoints).join(", ")}.`);
    }
    if (request.method !== endpoint.method) {
      throw new ApiError(405, `${path} takes ${endpoint.method}; received ${request.method}.`, {
        headers: { allow: endpoint.method },
      });
    }
    await endpoint.handle(exchange);
  }

  #fail(exchange: Exchange, error: Error): void {
    if (error instanceof ClientGone) return;
    if (error instanceof ApiError) {
      exchange.fail(error);
      return;
    }
    this.#onFailure(error);
    exchange.fail(new ApiError(500, "The server failed to answer. Its own messages say why.", { cause: error }));
  }
}

function stopped(): ApiError {
  return new ApiError(503, "The server is stopping.", {
    code: "server_stopping",
    headers: { connection: "close", "retry-after": "1" },
  });
}
