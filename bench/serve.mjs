/** `llmeff serve` under 1, 8 and 64 clients: requests and tokens a second, and how long the first token takes. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { byteTokenizer, loadLlama2cTokenizer, tokenizerJson } from "@llmeff/data";
import { loadLlama2c, saveHuggingFace, Transformer } from "@llmeff/models";
import { root } from "../scripts/lib/workspace.mjs";
import { cores } from "./lib/machine.mjs";
import { fixed, printTable } from "./lib/report.mjs";
import { quantile } from "./lib/timing.mjs";

export const title = "Requests to llmeff serve";

const stories = join(root, "datasets", "stories260K");
const models = {
  stories260K: async () => ({
    ...(await loadLlama2c(join(stories, "stories260K.bin"), { device: "cpu" })),
    tokenizer: await loadLlama2cTokenizer(join(stories, "tok512.bin")),
  }),
  "random, 14M": async () => {
    const model = new Transformer({ vocabSize: 256, dModel: 384, numLayers: 8, numHeads: 6, maxSeqLen: 512 });
    return { model, params: model.init(1), tokenizer: byteTokenizer() };
  },
};

const promptTokens = 32;
const maxTokens = 64;

export async function run({ smoke }) {
  const folder = mkdtempSync(join(tmpdir(), "llmeff-bench-serve-"));
  const rows = [];
  try {
    for (const [name, make] of Object.entries(models).slice(0, smoke ? 1 : undefined)) {
      const path = join(folder, name);
      const { model, params, tokenizer } = await make();
      const files = { "tokenizer.json": JSON.stringify(tokenizerJson(tokenizer)) };
      await saveHuggingFace(path, model, params, { files });
      rows.push(...(await measureModel(name, path, model.parameterCount, smoke)));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  console.log(
    `\nprompts of ${promptTokens} tokens, answers of ${maxTokens}, streamed; as many requests at a time as clients, 16 of them written at a time; server on ${cores} threads, clients beside it`,
  );
  printTable(
    ["model", "clients", "requests", "requests/s", "tokens/s", "first token ms: p50", "p95", "answer ms: p50"],
    rows.map((row) => [
      row.model,
      row.clients,
      row.requests,
      fixed(row.requestsPerSecond),
      fixed(row.tokensPerSecond, 0),
      fixed(row.firstTokenMs),
      fixed(row.firstTokenMsP95),
      fixed(row.answerMs),
    ]),
  );
  return rows;
}

async function measureModel(name, path, parameters, smoke) {
  const server = await startServer(path);
  try {
    const ask = asker(server.url, name);
    await ask(0);
    const rows = [];
    for (const clients of smoke ? [1, 4] : [1, 8, 64]) {
      const requests = smoke ? clients : Math.max(24, 3 * clients);
      rows.push({ model: name, parameters, threads: cores, clients, ...(await load(ask, clients, requests)) });
    }
    return rows;
  } finally {
    await server.stop();
  }
}

async function startServer(path) {
  const cli = join(root, "packages", "cli", "dist", "cli.js");
  const child = spawn(process.execPath, [cli, "serve", path, "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  const exit = new Promise((resolve) => child.once("exit", resolve));
  const url = await new Promise((resolve, reject) => {
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (piece) => {
      text += piece;
      const [, found] = /at (http:\S+) /.exec(text) ?? [];
      if (found !== undefined) resolve(found);
    });
    exit.then((code) => reject(new Error(`[bench] the server ended with ${code}.`)));
  });
  const stop = async () => {
    child.kill("SIGTERM");
    const code = await exit;
    if (code !== 0) throw new Error(`[bench] the server ended with ${code}; expected 0.`);
  };
  return { url, stop };
}

/** Asks for one answer. @returns when its first token came and when it ended, in ms */
function asker(url, model) {
  const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
  return (seed) =>
    new Promise((resolve, reject) => {
      const prompt = Array.from({ length: promptTokens }, (_, i) => 3 + ((7 * i + seed) % 200));
      const body = JSON.stringify({ model, prompt, max_tokens: maxTokens, seed, stream: true });
      const start = performance.now();
      const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
      const asked = request(`${url}/completions`, { method: "POST", agent, headers }, (reply) => {
        let first;
        let text = "";
        reply.setEncoding("utf8").on("data", (piece) => {
          first ??= performance.now() - start;
          text += piece;
        });
        reply.on("end", () => {
          if (!text.endsWith("data: [DONE]\n\n") || !text.includes('"finish_reason":"length"'))
            reject(new Error(`[bench] expected an answer of ${maxTokens} tokens; received ${text.slice(-300)}`));
          resolve({ first, end: performance.now() - start });
        });
      });
      asked.on("error", reject);
      asked.end(body);
    });
}

async function load(ask, clients, requests) {
  const times = [];
  let next = 0;
  const client = async () => {
    while (next < requests) times.push(await ask(++next));
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: clients }, client));
  const seconds = (performance.now() - start) / 1e3;
  const firsts = times.map(({ first }) => first);
  return {
    requests,
    seconds,
    requestsPerSecond: requests / seconds,
    tokensPerSecond: (requests * maxTokens) / seconds,
    firstTokenMs: quantile(firsts, 0.5),
    firstTokenMsP95: quantile(firsts, 0.95),
    answerMs: quantile(
      times.map(({ end }) => end),
      0.5,
    ),
  };
}
