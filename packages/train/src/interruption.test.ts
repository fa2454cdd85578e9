/** Runs that are interrupted anywhere end with the very bits of a run that is not. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { prefetch, Random } from "@llmeff/data";
import { IoError } from "@llmeff/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bundle, bundleEnvironment } from "../test/bundle.js";
import { temporaryFolder } from "../test/temporary-folder.js";
import { bitsOf, optimizerNames, tinyData, tinyLoss, tinyOptimizer, tinyParams } from "../test/tiny-model.js";
import { latestCheckpoint, type TrainEvent, train } from "./index.js";

const interrupted = new Error("interrupted");

/** What events say that must not depend on interruption: all but times, paths, and the fact of resuming. */
function essence(event: TrainEvent): string[] {
  if (event.type === "evaluation") return [JSON.stringify(event)];
  if (event.type !== "step") return [];
  const { step, loss, learningRate, gradNorm, tokens } = event;
  return [JSON.stringify({ step, loss, learningRate, gradNorm, tokens })];
}

describe("a run in this process", () => {
  const steps = 40;

  /** Trains with fresh objects, aborted after the event `stopAfter`; undefined: to the end. */
  async function life(name: (typeof optimizerNames)[number], directory: string, stopAfter: number | undefined) {
    // Other initial values than the run began with: everything must come from the checkpoint.
    const params = tinyParams(existsSync(directory) ? 1234 : 1);
    const optimizer = tinyOptimizer(name, params);
    const controller = new AbortController();
    const told: string[] = [];
    let count = 0;
    const events = train({
      params,
      optimizer,
      objective: tinyLoss,
      data: prefetch(tinyData(), { depth: 3 }),
      steps,
      gradientAccumulation: 2,
      evaluate: async ({ step }) => {
        if (step % 10 === 0) await delay(1, undefined, { signal: controller.signal });
        return { step };
      },
      evaluateEvery: 5,
      checkpoint: { directory, every: 8 },
      resume: true,
      signal: controller.signal,
    });
    try {
      for await (const event of events) {
        told.push(...essence(event));
        // Some milliseconds later it strikes in the middle of a step, of an evaluation or of a checkpoint.
        if (++count === stopAfter) setTimeout(() => controller.abort(interrupted), stopAfter % 4);
      }
    } catch (error) {
      expect(error).toBe(interrupted);
    }
    const state = optimizer.stateDict();
    const bits = { params: await bitsOf(params), tensors: await bitsOf(state.tensors), meta: state.meta };
    return { told, bits, stopped: controller.signal.aborted };
  }

  it.each(optimizerNames)("resumes bit by bit after an abort at any moment, with %s", async (name) => {
    const folder = temporaryFolder();
    const straight = await life(name, join(folder, "straight"), undefined);
    expect(straight.told).toHaveLength(steps + 8);
    const random = new Random(11, `interruption/${name}`);
    for (let trial = 0; trial < 4; trial++) {
      const directory = join(folder, `trial-${trial}`);
      const told: string[] = [];
      let lives = 0;
      let last: Awaited<ReturnType<typeof life>>;
      do {
        last = await life(name, directory, random.integer(1, 14));
        told.push(...last.told);
        lives++;
      } while (last.stopped);
      expect(lives).toBeGreaterThan(2);
      expect(told).toEqual(straight.told);
      expect(last.bits).toEqual(straight.bits);
    }
  });
});

describe.skipIf(process.platform === "win32")("a process", () => {
  let folder = "";
  let program = "";
  const random = new Random(5, "interruption/process");

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "llmeff-train-process-"));
    program = await bundle("training-process", folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  interface Life {
    lines: string[];
    exit: Promise<{ code: number | null; signal: string | null }>;
    child: ChildProcess;
    /** Resolves with the first line that passes, or undefined at the end of the output. */
    line(test: (line: string) => boolean): Promise<string | undefined>;
  }

  function start(directory: string, { steps = 400, every = 4, name = "sonew", limit = "" } = {}): Life {
    const command = [process.execPath, program, directory, String(steps), String(every), name];
    const options = { env: bundleEnvironment(), stdio: ["ignore", "pipe", "inherit"] as ["ignore", "pipe", "inherit"] };
    const child =
      limit === ""
        ? spawn(command[0]!, command.slice(1), options)
        : spawn("bash", ["-c", `${limit}; exec "$@"`, "bash", ...command], options);
    const lines: string[] = [];
    const waiting = new Set<() => void>();
    let rest = "";
    let ended = false;
    const wake = () => {
      for (const check of waiting) check();
    };
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      const parts = (rest + text).split("\n");
      rest = parts.pop()!;
      lines.push(...parts);
      wake();
    });
    const exit = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
      child.on("close", (code, signal) => {
        ended = true;
        wake();
        resolve({ code, signal });
      });
    });
    const line = (test: (line: string) => boolean) =>
      new Promise<string | undefined>((resolve) => {
        const check = () => {
          const found = lines.find(test);
          if (found === undefined && !ended) return;
          waiting.delete(check);
          resolve(found);
        };
        waiting.add(check);
        check();
      });
    return { lines, exit, child, line };
  }

  /** Runs to the end; its last line holds a digest of all parameters and optimizer state. */
  async function finish(directory: string, options: Parameters<typeof start>[1] = {}): Promise<string> {
    const life = start(directory, options);
    expect(await life.exit).toEqual({ code: 0, signal: null });
    return life.lines.at(-1)!;
  }

  /** Signals the process some steps after its start, every other time right at the beginning of a checkpoint. */
  async function strike(life: Life, signal: "SIGKILL" | "SIGINT", every: number, turn: number): Promise<void> {
    let steps = random.integer(0, 16);
    let seen = "";
    await life.line((line) => {
      if (line === seen || !line.startsWith("step")) return false;
      seen = line;
      const atCheckpoint = Number(line.split(" ")[1]) % every === 0;
      return --steps < 0 && (turn % 2 === 0 || atCheckpoint);
    });
    await delay(random.uniform() * 6);
    life.child.kill(signal);
  }

  it("killed 20 times at random moments ends with the same bits, and no checkpoint is ever unreadable", async () => {
    const expected = await finish(join(folder, "straight"), { steps: 1000 });
    const directory = join(folder, "killed");
    let kills = 0;
    let newest = 0;
    while (kills < 20) {
      const life = start(directory, { steps: 1000 });
      await strike(life, "SIGKILL", 4, kills);
      expect(await life.exit).toEqual({ code: null, signal: "SIGKILL" });
      kills++;
      // Whatever stands there under the name of a checkpoint is whole, and none that was told of is lost.
      const found = await latestCheckpoint(directory);
      expect(found?.skipped ?? []).toEqual([]);
      const told = life.lines.filter((line) => line.startsWith("checkpoint")).map((line) => Number(line.split(" ")[1]));
      expect(found?.step ?? 0).toBeGreaterThanOrEqual(Math.max(newest, ...told));
      newest = found?.step ?? 0;
    }
    expect(await finish(directory, { steps: 1000 })).toBe(expected);
    expect(readdirSync(directory).sort()).toEqual(["step-00000996", "step-00001000"]);
  });

  it("interrupted by SIGINT ends after a checkpoint of its last step, and goes on to the same bits", async () => {
    const expected = await finish(join(folder, "straight-int"), { name: "adamw", every: 50 });
    const directory = join(folder, "interrupted");
    for (let turn = 0; turn < 4; turn++) {
      const life = start(directory, { name: "adamw", every: 50 });
      await strike(life, "SIGINT", 1, turn);
      expect(await life.exit).toEqual({ code: 130, signal: null });
      expect(life.lines.at(-1)).toBe("failed interrupted");
      const steps = life.lines.filter((line) => line.startsWith("step"));
      expect((await latestCheckpoint(directory))!.step).toBe(Number(steps.at(-1)!.split(" ")[1]));
    }
    expect(await finish(directory, { name: "adamw", every: 50 })).toBe(expected);
  });

  it("that may not write the whole file (file size limit) fails with an IoError's message and keeps what was there", async () => {
    const directory = join(folder, "limited");
    await finish(directory, { steps: 8 });
    const before = await latestCheckpoint(directory);
    // 8 KiB a file: less than the parameters need, so the write fails in the middle, as it does on a full disk.
    const life = start(directory, { steps: 20, limit: "ulimit -f 8" });
    expect(await life.exit).toEqual({ code: 1, signal: null });
    expect(life.lines.at(-1)).toMatch(
      /^failed \[train\] the checkpoint of step 12 can't be written to .*EFBIG.*Earlier checkpoints are unchanged/,
    );
    expect(readdirSync(directory).sort()).toEqual(["step-00000004", "step-00000008"]);
    expect(await latestCheckpoint(directory)).toEqual(before);
    expect(await finish(directory, { steps: 20 })).toBe(await finish(join(folder, "unlimited"), { steps: 20 }));
  });

  it("gives an IoError where a device is full", async () => {
    const params = tinyParams();
    const optimizer = tinyOptimizer("adamw", params);
    const data = tinyData();
    const run = train({
      params,
      optimizer,
      objective: tinyLoss,
      data,
      steps: 1,
      checkpoint: { directory: "/dev/full/x" },
    });
    await expect(
      (async () => {
        for await (const _ of run);
      })(),
    ).rejects.toThrow(IoError);
  });
});
