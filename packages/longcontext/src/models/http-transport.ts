/**
 * One POST over node:http(s), with the time limits that long prompts need: `fetch` of Node gives up after 300 s without headers, and the
 * prefill of a million tokens can take longer.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { ModelError } from "./eval-model.js";

export interface Timeouts {
  /** Until the connection stands; default 30 s. */
  connectMs: number;
  /** From there to the first byte of the reply; default 30 min. */
  firstByteMs: number;
  /** Between two pieces of the reply; default 5 min. */
  idleMs: number;
}

export const defaultTimeouts: Timeouts = { connectMs: 30_000, firstByteMs: 30 * 60_000, idleMs: 5 * 60_000 };

export interface HttpReply {
  status: number;
  headers: IncomingHttpHeaders;
  /** The body, piece by piece as it comes. Throws a {@link ModelError} where it is cut or stays out. */
  body: AsyncIterable<Buffer>;
}

export interface HttpCall {
  method: "GET" | "POST";
  url: URL;
  headers: Readonly<Record<string, string>>;
  body?: string;
  signal?: AbortSignal | undefined;
}

/** Connections to one endpoint, kept open between requests. */
export class HttpConnections {
  readonly #timeouts: Timeouts;
  readonly #http = new HttpAgent({ keepAlive: true });
  readonly #https = new HttpsAgent({ keepAlive: true });

  constructor(timeouts: Partial<Timeouts> = {}) {
    this.#timeouts = { ...defaultTimeouts, ...timeouts };
  }

  /**
   * Sends a request and waits for the head of the reply.
   *
   * @throws {ModelError} of the kind `retry` if no connection can be made, or nothing comes in time
   */
  async send(call: HttpCall): Promise<HttpReply> {
    const { url, body, signal } = call;
    signal?.throwIfAborted();
    const secure = url.protocol === "https:";
    const content = body === undefined ? undefined : Buffer.from(body);
    const request = (secure ? httpsRequest : httpRequest)(url, {
      method: call.method,
      agent: secure ? this.#https : this.#http,
      headers: { ...call.headers, ...(content === undefined ? {} : { "content-length": content.length }) },
    });
    const abort = () => request.destroy(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
    signal?.addEventListener("abort", abort, { once: true });
    const done = () => signal?.removeEventListener("abort", abort);
    try {
      const response = await this.#head(request, content, url);
      return {
        status: response.statusCode ?? 0,
        headers: response.headers,
        body: this.#pieces(response, url, signal, done),
      };
    } catch (error) {
      done();
      throw signal?.aborted ? signal.reason : error;
    }
  }

  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }

  #head(request: ReturnType<typeof httpRequest>, content: Buffer | undefined, url: URL): Promise<IncomingMessage> {
    const { connectMs, firstByteMs } = this.#timeouts;
    return new Promise((resolve, reject) => {
      const late = (what: string, ms: number) => () =>
        request.destroy(new ModelError("retry", `[http] ${url.origin} ${what} within ${ms / 1000} s.`));
      let timer = setTimeout(late("took no connection", connectMs), connectMs);
      const connected = () => {
        clearTimeout(timer);
        timer = setTimeout(late("sent no reply", firstByteMs), firstByteMs);
      };
      request.once("socket", (socket) => {
        if (!socket.connecting) connected();
        else socket.once(url.protocol === "https:" ? "secureConnect" : "connect", connected);
      });
      request.once("response", (response) => {
        clearTimeout(timer);
        resolve(response);
      });
      request.on("error", (cause) => {
        clearTimeout(timer);
        reject(cause instanceof ModelError ? cause : unreachable(url, cause));
      });
      request.end(content);
    });
  }

  async *#pieces(
    response: IncomingMessage,
    url: URL,
    signal: AbortSignal | undefined,
    done: () => void,
  ): AsyncGenerator<Buffer> {
    const { idleMs } = this.#timeouts;
    const late = () =>
      response.destroy(new ModelError("retry", `[http] ${url.origin} fell silent for ${idleMs / 1000} s in a reply.`));
    let timer = setTimeout(late, idleMs);
    try {
      for await (const piece of response) {
        clearTimeout(timer);
        yield piece as Buffer;
        timer = setTimeout(late, idleMs);
      }
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      if (cause instanceof ModelError) throw cause;
      throw new ModelError("retry", `[http] the reply of ${url.origin} was cut: ${reasonOf(cause)}.`, { cause });
    } finally {
      clearTimeout(timer);
      done();
    }
  }
}

function unreachable(url: URL, cause: Error): ModelError {
  return new ModelError("retry", `[http] no reply from ${url.origin}: ${reasonOf(cause)}. Is the endpoint running?`, {
    cause,
  });
}

/** Connection errors of several addresses come as one error with an empty message. */
function reasonOf(cause: unknown): string {
  if (cause instanceof AggregateError) return cause.errors.map(reasonOf).join("; ");
  return cause instanceof Error ? cause.message : String(cause);
}
