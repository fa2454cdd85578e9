/** Runs that are interrupted anywhere end with the very bits of a run that is not. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { type BatchSource, prefetch, Random } from "@llmeff/data";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bundle, bundleEnvironment } from "../test/bundle.js";
import { collect } from "../test/run.js";
import { temporaryFolder } from "../test/temporary-folder.js";
import { bitsOf, optimizerNames, tinyData, tinyLoss, tinyOptimizer, tinyParams } from "../test/tiny-model.js";
import { latestCheckpoint, type TrainEvent, type TrainOptions, train } from "./index.js";

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
    const abortAfter = (turns: number): void => {
      if (turns === 0) controller.abort(interrupted);
      else setImmediate(abortAfter, turns - 1);
    };
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
        // Some turns of the event loop later it strikes in the middle of a step, of an evaluation or of a checkpoint.
        if (++count === stopAfter) abortAfter(stopAfter % 4);
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

describe("a resumed run", () => {
  const steps = 6;
  const setUp = (directory: string, more: Partial<TrainOptions>) => {
    const params = tinyParams();
    const optimizer = tinyOptimizer("adamw", params);
    const checkpoint = { directory, every: 2 };
    return { params, optimizer, objective: tinyLoss, data: tinyData(), steps, checkpoint, resume: true, ...more };
  };
  const names = async (options: TrainOptions) =>
    (await collect(train(options))).map(({ type, step }) => `${type} ${step}`);

  it("has nothing to do if the run was done, by its steps or by stopWhen", async () => {
    const done = temporaryFolder();
    await names(setUp(done, {}));
    expect(await names(setUp(done, {}))).toEqual(["resumed 6"]);
    expect(await names(setUp(done, { steps: 7 }))).toEqual(["resumed 6", "step 7", "checkpoint 7"]);

    const stopped = temporaryFolder();
    const evaluate = ({ step }: { step: number }) => ({ step, odd: Number.NaN });
    const until: Partial<TrainOptions> = {
      evaluate,
      evaluateEvery: 3,
      stopWhen: ({ step, odd }) => step! >= 3 && Number.isNaN(odd),
    };
    expect((await names(setUp(stopped, until))).slice(-3)).toEqual(["step 3", "evaluation 3", "checkpoint 3"]);
    expect(await names(setUp(stopped, until))).toEqual(["resumed 3"]);
  });

  it("makes up for the evaluation in which it was aborted", async () => {
    const directory = temporaryFolder();
    const controller = new AbortController();
    const evaluate = async ({ signal }: { signal: AbortSignal | undefined }) => {
      controller.abort(interrupted);
      signal?.throwIfAborted();
      return {};
    };
    const first = setUp(directory, { evaluate, evaluateEvery: 3, signal: controller.signal });
    await expect(names(first)).rejects.toBe(interrupted);
    expect((await latestCheckpoint(directory))!.step).toBe(3);
    const again = await names(setUp(directory, { evaluate: () => ({ fine: 1 }), evaluateEvery: 3 }));
    expect(again.slice(0, 4)).toEqual(["resumed 3", "evaluation 3", "step 4", "checkpoint 4"]);
  });
});

describe("a run aborted while it waits for data", () => {
  it("forgets the micro-batches of the step that didn't happen", async () => {
    const life = async (directory: string, abortAt: number) => {
      const params = tinyParams();
      const optimizer = tinyOptimizer("adamw", params);
      const controller = new AbortController();
      const data = tinyData();
      let batches = 0;
      const source: BatchSource = {
        next: () => {
          if (++batches === abortAt) controller.abort(interrupted);
          controller.signal.throwIfAborted();
          return data.next();
        },
        state: () => data.state(),
        restore: (state) => data.restore(state),
      };
      const options = { params, optimizer, objective: tinyLoss, data: source, steps: 6, gradientAccumulation: 3 };
      const run = train({ ...options, checkpoint: { directory }, resume: true, signal: controller.signal });
      const ended = collect(run).then(
        () => "done",
        (error) => error.message,
      );
      return { ended: await ended, bits: await bitsOf(params) };
    };
    const straight = await life(temporaryFolder(), Number.POSITIVE_INFINITY);
    const directory = temporaryFolder();
    // The 9th batch is the last of step 3: two of its micro-batches were taken already.
    expect(await life(directory, 9)).toMatchObject({ ended: "interrupted" });
    expect((await latestCheckpoint(directory))!.step).toBe(2);
    expect(await life(directory, Number.POSITIVE_INFINITY)).toEqual(straight);
  });
});

describe.skipIf(process.platform === "win32")("a process", { timeout: 300_000 }, () => {
  let folder = "";
  let program = "";
  const random = new Random(5, "interruption/process");

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "llmeff-train-process-"));
    program = await bundle("training-process", folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  interface Life {
    child: ChildProcess;
    lines: string[];
    exit: Promise<{ code: number | null; signal: string | null }>;
    /** Resolves with true when so many lines of a kind have come, with false if the output ends before. */
    has(count: number, kind: RegExp): Promise<boolean>;
  }

  interface LifeOptions {
    steps?: number;
    every?: number;
    name?: (typeof optimizerNames)[number];
    pause?: number;
    limit?: string;
  }

  function start(directory: string, options: LifeOptions = {}): Life {
    const { steps = 400, every = 4, name = "sonew", pause = Number.POSITIVE_INFINITY, limit = "true" } = options;
    const command = [process.execPath, program, directory, String(steps), String(every), name, String(pause)];
    const child = spawn("bash", ["-c", `${limit}; exec "$@"`, "bash", ...command], {
      env: bundleEnvironment(),
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines: string[] = [];
    const output = createInterface({ input: child.stdout }).on("line", (line) => lines.push(line));
    const exit = new Promise<{ code: number | null; signal: string | null }>((resolve) =>
      child.on("close", (code, signal) => resolve({ code, signal })),
    );
    const has = (count: number, kind: RegExp) =>
      new Promise<boolean>((resolve) => {
        const enough = () => lines.filter((line) => kind.test(line)).length >= count;
        const check = () => enough() && resolve(true);
        output.on("line", check).on("close", () => resolve(enough()));
        check();
      });
    return { child, lines, exit, has };
  }

  /** Runs to the end; its last line holds a digest of all parameters and optimizer state. */
  async function finish(directory: string, options: LifeOptions = {}): Promise<string> {
    const life = start(directory, options);
    expect(await life.exit).toEqual({ code: 0, signal: null });
    return life.lines.at(-1)!;
  }

  const everyFourth = /^step (\d*([02468][048]|[13579][26])|[48])$/;

  /** Signals the process up to 20 steps after its start, every other time when a checkpoint is due. */
  async function strike(life: Life, signal: "SIGKILL" | "SIGINT", turn: number): Promise<void> {
    const kind = turn % 2 === 0 ? /^step / : everyFourth;
    const count = turn % 2 === 0 ? random.integer(1, 20) : random.integer(1, 5);
    expect(await life.has(count, kind)).toBe(true);
    await delay(random.uniform() * 6);
    life.child.kill(signal);
  }

  // A process pauses after 40 steps, so 20 of them don't reach step 850.
  it("killed 20 times at random moments ends with the same bits, and no checkpoint is ever unreadable", async () => {
    const expected = await finish(join(folder, "straight"), { steps: 850 });
    const directory = join(folder, "killed");
    let kills = 0;
    let newest = 0;
    while (kills < 20) {
      const life = start(directory, { steps: 850, pause: 40 });
      await strike(life, "SIGKILL", kills);
      expect(await life.exit).toEqual({ code: null, signal: "SIGKILL" });
      kills++;
      // Whatever stands there under the name of a checkpoint is whole, and none that was told of is lost.
      const found = await latestCheckpoint(directory);
      expect(found?.skipped ?? []).toEqual([]);
      const told = life.lines.filter((line) => line.startsWith("checkpoint")).map((line) => Number(line.split(" ")[1]));
      expect(found?.step ?? 0).toBeGreaterThanOrEqual(Math.max(newest, ...told));
      newest = found?.step ?? 0;
    }
    expect(await finish(directory, { steps: 850 })).toBe(expected);
    expect(readdirSync(directory).sort()).toEqual(["step-00000848", "step-00000850"]);
  });

  it("interrupted by SIGINT 20 times ends after a checkpoint of its last step, and goes on to the same bits", async () => {
    const expected = await finish(join(folder, "straight-int"), { steps: 850, name: "adamw", every: 50 });
    const directory = join(folder, "interrupted");
    for (let turn = 0; turn < 20; turn++) {
      const life = start(directory, { steps: 850, name: "adamw", every: 50, pause: 40 });
      await strike(life, "SIGINT", turn);
      expect(await life.exit).toEqual({ code: 130, signal: null });
      expect(life.lines.at(-1)).toBe("failed interrupted");
      const steps = life.lines.filter((line) => line.startsWith("step"));
      expect((await latestCheckpoint(directory))!.step).toBe(Number(steps.at(-1)!.split(" ")[1]));
    }
    expect(await finish(directory, { steps: 850, name: "adamw", every: 50 })).toBe(expected);
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
});
