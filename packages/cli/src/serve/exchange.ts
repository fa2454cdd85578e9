/** One HTTP request and its reply. */
import { once, setMaxListeners } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { ApiError } from "./api-error.js";

/** Why work for a client ends that isn't there any more; nobody is left to be told. */
export class ClientGone extends Error {}

export class Exchange {
  readonly #controller = new AbortController();
  /** Of the reply, whatever it is. */
  readonly headers: Record<string, string> = {};
  /** While the client has enough to read. */
  #drained: Promise<unknown> | undefined;

  constructor(
    readonly request: IncomingMessage,
    private readonly response: ServerResponse,
    /** For a client to make room for more of a stream; whoever reads nothing for so long is left. */
    private readonly stallMs: number,
  ) {
    setMaxListeners(0, this.signal); // every answer of a request is one
    const { socket } = request;
    const gone = () => this.abort(new ClientGone("[serve] the client has closed the connection."));
    // A response that is behind others of its connection isn't told of the socket's end.
    socket.setMaxListeners(0).once("close", gone);
    response.once("close", () => {
      socket.off("close", gone);
      gone();
    });
  }

  /** Aborted when the client leaves, or by `abort`. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends the work for this request; the first reason counts. */
  abort(reason: Error): void {
    this.#controller.abort(reason);
  }

  /**
   * The body as JSON.
   *
   * @throws {ApiError} for another type, more bytes, or what isn't JSON
   */
  async json(maxBytes: number): Promise<unknown> {
    const type = this.request.headers["content-type"] ?? "";
    // Also what keeps foreign web pages out: a browser sends this type only after it has asked.
    if (!/^application\/json\s*(?:;|$)/i.test(type)) {
      throw new ApiError(415, `The body must be of the type application/json; received ${type || "none"}.`);
    }
    const text = await this.#text(maxBytes);
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new ApiError(400, `The body is not JSON: ${(cause as Error).message}.`, { cause });
    }
  }

  async #text(maxBytes: number): Promise<string> {
    const tooLong = () =>
      new ApiError(413, `The body has more than ${maxBytes} bytes, the most that this server reads.`, {
        headers: { connection: "close" },
      });
    const parts: Buffer[] = [];
    let bytes = 0;
    // A client that takes its time must not keep the server from its end: the iteration below ends with this.
    const giveUp = () => this.request.destroy();
    this.signal.throwIfAborted();
    this.signal.addEventListener("abort", giveUp, { once: true });
    try {
      for await (const part of this.request as AsyncIterable<Buffer>) {
        bytes += part.length;
        if (bytes <= maxBytes) parts.push(part);
        // A client that still sends may not read: up to here what is too much is read away before it is told.
        else if (bytes > 4 * maxBytes) throw tooLong();
      }
    } catch (cause) {
      if (cause instanceof ApiError) throw cause;
      throw new ClientGone("[serve] the client left before its request had come.", { cause });
    } finally {
      this.signal.removeEventListener("abort", giveUp);
    }
    if (bytes > maxBytes) throw tooLong();
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts));
    } catch (cause) {
      throw new ApiError(400, "The body is not valid UTF-8.", { cause });
    }
  }

  send(status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): void {
    const text = JSON.stringify(body);
    const length = String(Buffer.byteLength(text));
    const own = { "content-type": "application/json; charset=utf-8", "content-length": length };
    this.response.writeHead(status, { ...this.headers, ...headers, ...own });
    this.response.end(text);
  }

  sendNothing(headers: Readonly<Record<string, string>>): void {
    this.response.writeHead(204, { ...this.headers, ...headers });
    this.response.end();
  }

  /** Begins a stream of server-sent events, which `event` and `endEvents` go on with. */
  beginEvents(): void {
    this.response.writeHead(200, {
      ...this.headers,
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      // Proxies that would gather the pieces are asked not to.
      "x-accel-buffering": "no",
    });
    this.response.flushHeaders();
  }

  /** Sends an event and waits until the client has read enough for the next: what isn't read is not written either. */
  async event(data: unknown): Promise<void> {
    this.signal.throwIfAborted();
    if (this.#write(JSON.stringify(data))) return;
    // One for all answers of a reply.
    this.#drained ??= this.#drain();
    await this.#drained.catch(() => this.signal.throwIfAborted());
  }

  async #drain(): Promise<void> {
    const late = setTimeout(() => {
      this.abort(new ApiError(408, `The client has read nothing for ${this.stallMs / 1000} s.`, { code: "timeout" }));
    }, this.stallMs);
    try {
      await once(this.response, "drain", { signal: this.signal });
    } finally {
      clearTimeout(late);
      this.#drained = undefined;
    }
  }

  /** Waits until the reply is out of this process; a client that hasn't taken it when the exchange is aborted is left. */
  async delivered(): Promise<void> {
    const { response, signal } = this;
    if (signal.aborted || !response.writableEnded) return;
    // Also when it has been sent: a response closes then.
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    if (!response.writableFinished) this.request.socket.destroy();
  }

  endEvents(): void {
    this.#write("[DONE]");
    this.response.end();
  }

  #write(data: string): boolean {
    return this.response.write(`data: ${data}\n\n`);
  }

  /** Tells an error, as a reply or, where a stream has begun, as its last event; a client that doesn't read is left. */
  fail(error: ApiError): void {
    const { response } = this;
    if (!response.headersSent) this.send(error.status, error.body, error.headers);
    else if (response.writableNeedDrain) response.destroy();
    else {
      this.#write(JSON.stringify(error.body));
      response.end();
    }
  }
}
