/** `kill -9` at any moment loses no reply that had come, and has none asked for again. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { bundleProgram } from "../../../../test/bundle.js";
import { type Behaviour, TestEndpoint } from "../../../../test/openai-endpoint.js";
import { trouble } from "../../test/trouble.js";
import type { ResultRecord } from "./result.js";
import { readResults, resultsFile } from "./results-file.js";

const concurrency = 4;
/** Prices of `run-program`, in millionths. */
const prices = { input: 1, output: 2 };
let folder = "";
let program = "";
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "llmeff-kill-"));
  program = await bundleProgram(new URL("../../test/run-program.ts", import.meta.url), folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One life of the run: started, and either killed or over. */
class Life {
  readonly process: ChildProcess;
  readonly ended: Promise<number | null>;
  #errors = "";

  constructor(url: string, runFolder: string, count: number) {
    this.process = spawn(process.execPath, [program, url, runFolder, String(count), String(concurrency)], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.process.stderr!.on("data", (piece: Buffer) => {
      this.#errors += piece.toString();
    });
    this.ended = new Promise((resolve) => this.process.on("exit", resolve));
  }

  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.ended;
  }

  async finish(): Promise<void> {
    expect(`${await this.ended} ${this.#errors}`).toBe("0 ");
  }
}

function answersIn(path: string): number {
  return existsSync(path) ? readFileSync(path, "utf8").split('"status":"ok"').length - 1 : 0;
}

async function recordsOf(path: string): Promise<ResultRecord[]> {
  const records: ResultRecord[] = [];
  await readResults(path, (record) => records.push(record));
  return records;
}

it("asks no sample again whose answer had come, and pays for none twice, after kills at five moments of a run full of trouble", {
  timeout: 240_000,
}, async () => {
  const count = 500;
  const runFolder = join(folder, "five");
  const results = join(runFolder, resultsFile);
  /** The request at which to strike, and what the server is doing with it. */
  const moments: { at: number; with: Behaviour }[] = [
    { at: 1, with: { kind: "silent" } },
    { at: 150, with: { kind: "cut" } },
    { at: 320, with: { kind: "status", status: 429 } },
    { at: 480, with: { kind: "unfinished" } },
    { at: 700, with: { kind: "silent" } },
  ];
  let life: Life | undefined;
  let requests = 0;
  let striking = false;
  const killed: Promise<void>[] = [];
  await using endpoint = await TestEndpoint.start(async ({ prompt, times }) => {
    requests++;
    // While a kill is under way nothing is answered, so that only what was sent before counts as answered.
    if (striking) return { kind: "silent" };
    const moment = moments[0];
    if (moment === undefined || requests < moment.at) return trouble(prompt, times, "0");
    moments.shift();
    striking = true;
    killed.push(strike(life!));
    return moment.with;
  });

  /** Kills when all answers that were sent stand in the file. */
  async function strike(victim: Life): Promise<void> {
    const settled = () => {
      const answered = [...endpoint.tally.answered.values()].reduce((sum, n) => sum + n, 0);
      return endpoint.answering === 0 && answersIn(results) === answered;
    };
    for (let i = 0; i < 4000 && !settled(); i++) await delay(5);
    expect(settled()).toBe(true);
    await victim.kill();
  }

  while (moments.length > 0) {
    life = new Life(endpoint.url, runFolder, count);
    await life.ended;
    await Promise.all(killed);
    striking = false;
  }
  await new Life(endpoint.url, runFolder, count).finish();

  expect(killed).toHaveLength(5);
  expect([...endpoint.tally.answered.values()]).toEqual(Array(490).fill(1));
  const records = await recordsOf(results);
  expect(new Set(records.map(({ id }) => id)).size).toBe(count);
  expect(records).toHaveLength(count);
  const [answered, failed] = [true, false].map((is) => records.filter(({ status }) => (status === "ok") === is));
  expect(answered!.every(({ score }) => score === 1)).toBe(true);
  expect(failed!.map(({ status }) => status)).toEqual(Array(10).fill("error"));
  const sum = (name: "promptTokens" | "completionTokens") =>
    answered!.reduce((total, { usage }) => total + usage![name], 0);
  const { promptTokens, completionTokens } = endpoint.tally;
  expect([sum("promptTokens"), sum("completionTokens")]).toEqual([promptTokens, completionTokens]);
  const cost = answered!.reduce((total, record) => total + record.cost!, 0);
  expect(cost).toBeCloseTo((promptTokens * prices.input + completionTokens * prices.output) / 1e6, 9);
});

it("asks again at the most what was under way when it was killed at a random moment", {
  timeout: 240_000,
}, async () => {
  const count = 60;
  const runFolder = join(folder, "random");
  await using endpoint = await TestEndpoint.start(() => ({ kind: "answer", delayMs: 4 }));
  const kills = [3, 15, 28, 40, 52];
  for (const answers of kills) {
    const life = new Life(endpoint.url, runFolder, count);
    while (endpoint.tally.answered.size < answers) await delay(1);
    await life.kill();
  }
  await new Life(endpoint.url, runFolder, count).finish();
  expect(endpoint.tally.answered.size).toBe(count);
  expect(endpoint.tally.requests).toBeLessThanOrEqual(count + kills.length * concurrency);
  const records = await recordsOf(join(runFolder, resultsFile));
  expect(new Set(records.map(({ id }) => id)).size).toBe(count);
  expect(records).toHaveLength(count);
});
