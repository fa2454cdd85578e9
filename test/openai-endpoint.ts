/** An OpenAI-compatible server on this machine that misbehaves as told, and counts for itself what it was asked and what it answered. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** How a request is met. */
export type Behaviour =
  | { kind: "answer"; text?: string; finish?: string; reasoning?: string; delayMs?: number; usage?: boolean }
  | { kind: "status"; status: number; headers?: Record<string, string>; body?: string }
  /** The connection ends in the middle of the answer. */
  | { kind: "cut" }
  /** The stream ends in good order, but too early. */
  | { kind: "unfinished" }
  | { kind: "garbage"; body?: string }
  /** Nothing comes back until the server closes. */
  | { kind: "silent" };

export interface Asked {
  /** The content of the last message, or the prompt. */
  prompt: string;
  body: Record<string, unknown>;
  headers: IncomingMessage["headers"];
  path: string;
  /** How often this prompt has come, this time included. */
  times: number;
}

export interface Tally {
  requests: number;
  /** Answers that were sent to the end, by prompt. */
  answered: Map<string, number>;
  promptTokens: number;
  completionTokens: number;
}

export class TestEndpoint implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly tally: Tally = { requests: 0, answered: new Map(), promptTokens: 0, completionTokens: 0 };
  active = 0;
  mostActive = 0;
  /** Answers that are on their way. */
  answering = 0;
  readonly #server: Server;
  readonly #times = new Map<string, number>();

  private constructor(behave: (asked: Asked) => Behaviour | Promise<Behaviour>) {
    this.#server = createServer((request, response) => {
      this.active++;
      this.mostActive = Math.max(this.active, this.mostActive);
      response.on("close", () => this.active--);
      this.#serve(request, response, behave).catch(() => response.destroy());
    });
  }

  static async start(
    behave: (asked: Asked) => Behaviour | Promise<Behaviour> = () => ({ kind: "answer" }),
  ): Promise<TestEndpoint> {
    const endpoint = new TestEndpoint(behave);
    await new Promise<void>((resolve) => endpoint.#server.listen(0, "127.0.0.1", resolve));
    return endpoint;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`;
  }

  async #serve(
    request: IncomingMessage,
    response: ServerResponse,
    behave: (asked: Asked) => Behaviour | Promise<Behaviour>,
  ): Promise<void> {
    const path = request.url ?? "";
    if (request.method === "GET" && path === "/v1/models") {
      return sendJson(response, 200, { object: "list", data: [{ id: "test-model", max_model_len: 32_768 }] });
    }
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    const body = JSON.parse(Buffer.concat(pieces).toString("utf8") || "{}") as Record<string, unknown>;
    const messages = body.messages as { content: string }[] | undefined;
    const prompt = messages?.at(-1)?.content ?? String(body.prompt ?? "");
    const times = (this.#times.get(prompt) ?? 0) + 1;
    this.#times.set(prompt, times);
    this.tally.requests++;
    const asked = { prompt, body, headers: request.headers, path, times };
    this.asked.push(asked);
    await this.#meet(await behave(asked), asked, response);
  }

  async #meet(behaviour: Behaviour, { prompt, body, path }: Asked, response: ServerResponse): Promise<void> {
    switch (behaviour.kind) {
      case "silent":
        return;
      case "status":
        response.writeHead(behaviour.status, { "content-type": "application/json", ...behaviour.headers });
        response.end(behaviour.body ?? JSON.stringify({ error: { message: `status ${behaviour.status}` } }));
        return;
      case "garbage":
        response.writeHead(200, { "content-type": "application/json" });
        response.end(behaviour.body ?? "<html>gateway</html>");
        return;
      case "cut":
      case "unfinished":
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.write(event({ choices: [{ delta: { content: "The answ" } }] }));
        await new Promise((resolve) => setTimeout(resolve, 2));
        if (behaviour.kind === "cut") response.destroy();
        else response.end();
        return;
      case "answer":
    }
    this.answering++;
    response.once("close", () => this.answering--);
    const { text = prompt, finish = "stop", reasoning, delayMs = 0, usage: withUsage = true } = behaviour;
    if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
    const usage = {
      prompt_tokens: tokensOf(JSON.stringify(body.messages ?? body.prompt)),
      completion_tokens: tokensOf(text),
      prompt_tokens_details: { cached_tokens: 3 },
    };
    response.once("finish", () => {
      this.tally.answered.set(prompt, (this.tally.answered.get(prompt) ?? 0) + 1);
      this.tally.promptTokens += usage.prompt_tokens;
      this.tally.completionTokens += usage.completion_tokens;
    });
    const chat = path.endsWith("/chat/completions");
    const told = withUsage ? { usage } : {};
    if (body.stream !== true) {
      const said = chat ? { message: { role: "assistant", content: text, reasoning_content: reasoning } } : { text };
      return sendJson(response, 200, {
        id: "r1",
        model: "test",
        choices: [{ ...said, finish_reason: finish }],
        ...told,
      });
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(": a comment\n\n");
    if (reasoning !== undefined) response.write(event({ choices: [{ delta: { reasoning } }] }));
    const half = Math.ceil(text.length / 2);
    for (const part of [text.slice(0, half), text.slice(half)]) {
      response.write(event({ id: "r1", choices: [chat ? { delta: { content: part } } : { text: part }] }));
    }
    response.write(event({ choices: [{ delta: {}, finish_reason: finish }] }));
    const wantsUsage = (body.stream_options as { include_usage?: boolean } | undefined)?.include_usage === true;
    if (wantsUsage && withUsage) response.write(event({ choices: [], usage }));
    response.end("data: [DONE]\n\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function event(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

export function tokensOf(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 4);
}
