import { Worker } from "node:worker_threads";
import { engine } from "@llmeff/native";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { addonPath, bundle, discard, runNode } from "./child.js";

interface Result {
  hash: string;
  isa: string;
  numThreads: number;
}

let program = "";
let terminator = "";
beforeAll(async () => {
  program = await bundle("threads-program.ts");
  terminator = await bundle("terminate-program.ts");
});

afterAll(() => [program, terminator].forEach(discard));

async function inProcess(environment: Record<string, string>): Promise<Result> {
  const { code, stdout, stderr } = await runNode(program, [], environment);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as Result;
}

function inWorker(): Promise<Result> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(program, { env: { ...process.env, LLMEFF_NATIVE_PATH: addonPath } });
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", (code) => reject(new Error(`the worker ended with code ${code} before it had a result`)));
  });
}

describe("the engine in threads and processes", () => {
  it("gives the same bits with one thread and with several", async () => {
    const onCpu = { LLMEFF_DEVICE: "cpu" };
    const one = await inProcess({ LLMEFF_NUM_THREADS: "1", ...onCpu });
    expect(one.numThreads).toBe(1);
    for (const threads of ["2", "3", "7"]) {
      const several = await inProcess({ LLMEFF_NUM_THREADS: threads, ...onCpu });
      expect(several.numThreads).toBe(Number(threads));
      expect(several.hash, `${threads} threads`).toBe(one.hash);
    }
  });

  it("gives the same bits in every run and in four workers at once", async () => {
    const [alone, ...workers] = [
      await inProcess({}),
      ...(await Promise.all([inWorker(), inWorker(), inWorker(), inWorker()])),
    ];
    expect(new Set(workers.map(({ hash }) => hash))).toEqual(new Set([alone.hash]));
  });

  it("survives 20 workers that are terminated while they compute and wait for reads", async () => {
    const { code, signal, stdout, stderr } = await runNode(terminator, [program, "20"]);
    expect({ code, signal, stdout }, stderr).toEqual({ code: 0, signal: null, stdout: "10\n" });
  });

  it.each(engine().info().availableIsas)("runs on the instruction set %s when it is asked for", async (isa) => {
    expect((await inProcess({ LLMEFF_CPU_ISA: isa, LLMEFF_DEVICE: "cpu" })).isa).toBe(isa);
  });
});
