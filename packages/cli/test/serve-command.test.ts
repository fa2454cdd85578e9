/** `llmeff serve` as a command: what it says, how it ends, and that `llmeff eval` can ask it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { memory } from "@llmeff/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bundleProgram } from "../../../test/bundle.js";
import { type Running, sampleText, textConfig, type Workplace } from "./harness.js";
import { bundleTokenizerWorker, makePlace, root, until } from "./served.js";

let place: Workplace;
beforeAll(async () => {
  place = await makePlace();
});
afterAll(() => place[Symbol.asyncDispose]());

const address = (text: string) => /^serving \S+ at (http:\S+\/v1) /m.exec(text)?.[1];

async function serve(argv: string[], env?: Record<string, string>): Promise<Running & { url: string }> {
  const running = place.start(["serve", ...argv, "--port", "0"], env);
  await until(() => address(running.outcome.stdout) !== undefined);
  return Object.assign(running, { url: address(running.outcome.stdout)! });
}

describe("llmeff serve", () => {
  it("serves until Ctrl-C, ends with 0, and gives all memory back", async () => {
    const before = memory().liveBytes;
    const server = await serve(["stories", "--name", "tales", "--max-context", "100"]);
    expect(server.outcome.stdout).toMatch(
      /^serving tales at http:\/\/127\.0\.0\.1:\d+\/v1 \(100 tokens of context, no chat/,
    );
    const models = (await (await fetch(`${server.url}/models`)).json()) as { data: object[] };
    expect(models.data).toMatchObject([{ id: "tales", max_model_len: 100 }]);
    server.interrupt();
    expect(await server.ended).toMatchObject({ code: 0, stderr: expect.stringContaining("no further requests") });
    await expect(fetch(`${server.url}/models`)).rejects.toThrow();
    expect(memory().liveBytes).toBe(before);
  });

  it("takes its key from the environment and doesn't say it", async () => {
    const server = await serve(["stories", "--host", "0.0.0.0", "--key-env", "MINE"], { MINE: "very-secret" });
    const url = server.url.replace("0.0.0.0", "127.0.0.1");
    expect((await fetch(`${url}/models`)).status).toBe(401);
    expect((await fetch(`${url}/models`, { headers: { authorization: "Bearer very-secret" } })).status).toBe(200);
    server.interrupt();
    const { stdout, stderr } = await server.ended;
    expect(stdout + stderr).not.toContain("very-secret");
    expect(stderr).not.toContain("no key is needed");
    const open = await serve(["stories", "--host", "0.0.0.0"]);
    open.interrupt();
    expect((await open.ended).stderr).toContain("no key is needed");
  });

  it("serves a run's folder too", async () => {
    await place.write("text.txt", sampleText);
    await place.write("config.json", textConfig());
    expect((await place.run(["train", "config.json"])).code).toBe(0);
    const server = await serve(["runs/tiny"]);
    const ask = (prompt: string) => {
      const body = JSON.stringify({ model: "tiny", prompt, temperature: 0 });
      return fetch(`${server.url}/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
    };
    expect(((await (await ask("the ")).json()) as { choices: { text: string }[] }).choices[0]!.text).toHaveLength(16);
    const unknown = await ask("λ");
    expect(unknown.status).toBe(400);
    expect(await unknown.json()).toMatchObject({ error: { param: "prompt", message: expect.stringContaining("λ") } });
    server.interrupt();
    expect((await server.ended).code).toBe(0);
  });

  it.each([
    [["serve"], 2, /missing required argument 'model'/],
    [["serve", "nothing"], 1, /nothing doesn't exist/],
    [["serve", "stories", "--port", "70000"], 2, /expected a port/],
    [["serve", "stories", "--timeout", "0"], 2, /expected seconds/],
    [["serve", "stories", "--max-context", "600"], 2, /prepared for 512 tokens; received a context of 600/],
    [["serve", "stories", "--key-env", "EMPTY"], 2, /EMPTY holds no key/],
    [["serve", "stories", "--host", "256.0.0.1", "--port", "0"], 1, /256\.0\.0\.1:0 can't be listened on/],
  ])("refuses %j", async (argv, code, message) => {
    const before = memory().liveBytes;
    const outcome = await place.run(argv);
    expect(outcome.stderr).toMatch(message);
    expect(outcome.code).toBe(code);
    expect(memory().liveBytes).toBe(before);
  });
});

describe("llmeff eval run against llmeff serve", () => {
  it("finds the model and its context, has all samples answered, and reports", async () => {
    const server = await serve(["endless", "--max-context", "16384"], { LLMEFF_API_KEY: "serve-key" });
    const argv = ["eval", "run", "--model", server.url, "--task", "niah_s1,idk", "--lengths", "1k", "--samples", "2"];
    const outcome = await place.run([...argv, "--json"], { env: { LLMEFF_API_KEY: "serve-key" } });
    expect(outcome.stderr).not.toContain("not answered");
    expect(outcome.code).toBe(0);
    const { summary } = JSON.parse(outcome.stdout) as {
      summary: object;
    };
    // Of a model of random bytes every answer is as long as it may be.
    expect(summary).toMatchObject({
      written: 4,
      statuses: { truncated: 4, error: 0, context_exceeded: 0 },
      usage: { completionTokens: 384 },
    });
    // A prompt beyond the context is told as such, not as a failure of the server.
    const long = await place.run(
      [...argv.map((word) => (word === "1k" ? "32k" : word)), "--context", "100000", "--out", "long", "--json"],
      {
        env: { LLMEFF_API_KEY: "serve-key" },
      },
    );
    const told = JSON.parse(long.stdout) as { summary: { statuses: Record<string, number> } };
    expect(told.summary.statuses).toMatchObject({ ok: 0, error: 0, context_exceeded: 4 });
    server.interrupt();
    expect((await server.ended).code).toBe(0);
  });
});

describe("the process of llmeff serve", () => {
  let program: string;
  beforeAll(async () => {
    program = await bundleProgram(new URL("serve-program.ts", import.meta.url), place.path("program"));
    await bundleTokenizerWorker(place.path("program"));
  });

  async function start(model: string): Promise<{ child: ChildProcess; url: string }> {
    const addon = process.env.LLMEFF_NATIVE_PATH ?? join(root, "native/build/Release/llmeff.node");
    const child = spawn(process.execPath, [program, model], {
      cwd: place.folder,
      env: { ...process.env, LLMEFF_NATIVE_PATH: addon },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout!.setEncoding("utf8").on("data", (piece: string) => {
      text += piece;
    });
    await until(() => address(text) !== undefined || child.exitCode !== null);
    return { child, url: address(text)! };
  }

  it.each(["SIGTERM", "SIGINT"] as const)("ends with 0 at %s, a stream on its way or not", async (signal) => {
    const { child, url } = await start("endless");
    const body = JSON.stringify({ model: "endless", prompt: "a", max_tokens: 190_000, stream: true });
    const headers = { "content-type": "application/json" };
    const reply = await fetch(`${url}/completions`, { method: "POST", headers, body });
    const reader = reply.body!.getReader();
    await reader.read();
    const ended = once(child, "exit");
    child.kill(signal);
    let last = "";
    for (let part = await reader.read(); !part.done; part = await reader.read())
      last = Buffer.from(part.value).toString();
    expect(last).toContain("server_stopping");
    expect(await ended).toEqual([0, null]);
  });
});
