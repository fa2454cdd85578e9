import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { JsonObject } from "@llmeff/data";
import { AdamW } from "@llmeff/optim";
import { FormatError, IoError, NonFiniteError, OptionError } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collect } from "../test/run.js";
import { temporaryFolder } from "../test/temporary-folder.js";
import {
  bitsOf,
  disposeTensors,
  type optimizerNames,
  tinyData,
  tinyLoss,
  tinyOptimizer,
  tinyParams,
} from "../test/tiny-model.js";
import { decodeManifest, encodeManifest } from "./checkpoint-state.js";
import { bestCheckpoint, latestCheckpoint, loadCheckpoint, type TrainOptions, train } from "./index.js";

const files = ["model.safetensors", "optimizer.safetensors", "state.json"] as const;

function setUp(directory: string, more: Partial<TrainOptions> = {}, name: (typeof optimizerNames)[number] = "adamw") {
  const params = more.params ?? tinyParams();
  const optimizer = more.optimizer ?? tinyOptimizer(name, params);
  const checkpoint = { directory, every: 2, keepLast: 3 };
  return {
    objective: tinyLoss,
    data: tinyData(),
    steps: 6,
    checkpoint,
    ...more,
    params,
    optimizer,
  } satisfies TrainOptions;
}

/** A directory with checkpoints of steps 2, 4 and 6. */
async function trained(more: Partial<TrainOptions> = {}): Promise<string> {
  const directory = join(temporaryFolder(), "checkpoints");
  await collect(train(setUp(directory, more)));
  return directory;
}

const at = (directory: string, step: number, file = "") =>
  join(directory, `step-${String(step).padStart(8, "0")}`, file);

describe("checkpoints of the best evaluation", () => {
  const losses = [5, 3, 4, 3, 2.5, 6, 7, 8];
  const options = (directory: string, best = { metric: "loss" } as object, values = losses) => ({
    ...{ steps: 8, evaluateEvery: 1, evaluate: ({ step }: { step: number }) => ({ loss: values[step - 1]! }) },
    checkpoint: { directory, every: 4, keepLast: 1, best: best as { metric: string } },
  });
  const run = async (directory: string, more: Partial<TrainOptions>) => collect(train(setUp(directory, more)));
  const stepsIn = (directory: string) => readdirSync(directory).map((name) => Number(name.slice(5)));

  it("are written when an evaluation is the best so far, and the best stays", async () => {
    const directory = join(temporaryFolder(), "checkpoints");
    const events = await run(directory, options(directory));
    // 1, 2 and 5 are each better than all before, the second 3 is not; 4 and 8 are due.
    expect(events.filter(({ type }) => type === "checkpoint").map(({ step }) => step)).toEqual([1, 2, 4, 5, 8]);
    expect(stepsIn(directory)).toEqual([5, 8]);
    const best = await bestCheckpoint(directory);
    expect(best).toMatchObject({ step: 5, path: at(directory, 5), state: { best: { step: 5, value: 2.5 } } });
  });

  it("may be those of the highest value; a metric that is no number is never the best", async () => {
    const directory = join(temporaryFolder(), "checkpoints");
    const values = [Number.NaN, 1, Number.NaN, 2, 1, 1, 1, 1];
    await run(directory, options(directory, { metric: "loss", highest: true }, values));
    expect((await bestCheckpoint(directory))!.state.best).toEqual({ step: 4, value: 2, metric: "loss", highest: true });
    const last = join(temporaryFolder(), "checkpoints");
    await run(last, options(last, { metric: "loss", highest: true }, [1, 2, 3, 4, 5, 6, 7, 8]));
    expect((await bestCheckpoint(last))!.state.best).toMatchObject({ step: 8, value: 8 });
  });

  it("are found again by a resumed run", async () => {
    const directory = join(temporaryFolder(), "checkpoints");
    await run(directory, { ...options(directory), steps: 3 });
    await run(directory, { ...options(directory, undefined, [5, 3, 4, 9, 9, 9, 9, 9]), resume: true });
    expect(stepsIn(directory)).toEqual([2, 8]);
    expect((await bestCheckpoint(directory))!.step).toBe(2);
  });

  it("are judged anew when a resumed run judges by another metric, or the other way round", async () => {
    const first = async () => {
      const directory = join(temporaryFolder(), "checkpoints");
      await run(directory, { ...options(directory), steps: 3 });
      return directory;
    };
    const resumed = async (best: { metric: string; highest?: boolean }) => {
      const directory = await first();
      const evaluate = ({ step }: { step: number }) => ({
        loss: losses[step - 1]!,
        accuracy: [0, 0, 0, 0.2, 0.3, 0.1, 0.1, 0.1][step - 1]!,
      });
      await run(directory, { ...options(directory, best), evaluate, resume: true });
      return (await bestCheckpoint(directory))!.state.best;
    };
    // The loss of step 2 was 3, which no accuracy reaches; the losses rise to 8.
    expect(await resumed({ metric: "accuracy", highest: true })).toMatchObject({ step: 5, value: 0.3 });
    expect(await resumed({ metric: "loss", highest: true })).toMatchObject({ step: 8, value: 8 });
    expect(await resumed({ metric: "loss" })).toMatchObject({ step: 5, value: 2.5 });
    // A checkpoint of before metrics were stored has the metric of its run.
    const directory = await first();
    const path = at(directory, 3, files[2]);
    const { state, files: summaries } = decodeManifest(readFileSync(path, "utf8"));
    const { step, value } = state.best!;
    writeFileSync(path, encodeManifest({ files: summaries, state: { ...state, best: { step, value } } }));
    await run(directory, { ...options(directory, undefined, [5, 3, 4, 9, 9, 9, 9, 9]), resume: true });
    expect((await bestCheckpoint(directory))!.step).toBe(2);
  });

  it("are those of what is left where the best one was damaged", async () => {
    const directory = join(temporaryFolder(), "checkpoints");
    const keptTwo = (values?: number[]) => {
      const given = options(directory, undefined, values);
      return { ...given, checkpoint: { ...given.checkpoint, keepLast: 2 } };
    };
    await run(directory, { ...keptTwo(), steps: 5 });
    expect(stepsIn(directory)).toEqual([4, 5]);
    flipByte(at(directory, 5, files[0]), 0.5);
    // The state of step 4 names step 2 as the best, which went when step 5 was better.
    await run(directory, { ...keptTwo([5, 3, 4, 9, 9, 9, 9, 9]), resume: true });
    expect((await bestCheckpoint(directory))!.state.best).toMatchObject({ step: 4, value: 3 });
  });

  it("are those of an evaluation that was interrupted, once it is made", async () => {
    const directory = join(temporaryFolder(), "checkpoints");
    const stop = new AbortController();
    const evaluate = ({ step }: { step: number }) => {
      if (step === 8 && !stop.signal.aborted) {
        stop.abort(new Error("stop"));
        throw new Error("broken off");
      }
      return { loss: 10 - step };
    };
    const given = { ...options(directory), evaluate };
    await run(directory, { ...given, signal: stop.signal });
    expect((await bestCheckpoint(directory))!.step).toBe(7);
    await run(directory, { ...given, resume: true });
    expect((await bestCheckpoint(directory))!).toMatchObject({ step: 8, state: { best: { step: 8, value: 2 } } });
  });

  it("aren't there without evaluations, and refuse a metric that isn't measured", async () => {
    const directory = await trained();
    expect(await bestCheckpoint(directory)).toBeUndefined();
    expect(await bestCheckpoint(join(directory, "nowhere"))).toBeUndefined();
    const fresh = join(temporaryFolder(), "checkpoints");
    await expect(run(fresh, options(fresh, { metric: "accuracy" }))).rejects.toThrow(
      'checkpoint.best.metric is "accuracy", which evaluate didn\'t return; it has loss.',
    );
    const { evaluate: _, ...without } = options(fresh);
    expect(() => train(setUp(fresh, without))).toThrow("received best without evaluate");
    expect(() => train(setUp(fresh, options(fresh, { metric: 3 })))).toThrow(
      "must be the name of a metric; received 3",
    );
  });
});

describe("checkpoints of train", () => {
  it("are written when due and at the end, tell of it, and only the last ones stay", async () => {
    const directory = join(temporaryFolder(), "a", "b");
    const config: JsonObject = { name: "tiny", nested: { values: [1, 2.5, null] } };
    const options = setUp(directory, { steps: 9, config, seed: 5 });
    const events = await collect(train(options));
    const written = events.filter(({ type }) => type === "checkpoint");
    expect(written.map(({ step }) => step)).toEqual([2, 4, 6, 8, 9]);
    expect(written[0]).toEqual({ type: "checkpoint", step: 2, path: at(directory, 2) });
    expect(readdirSync(directory).sort()).toEqual(["step-00000006", "step-00000008", "step-00000009"]);
    expect(readdirSync(at(directory, 9)).sort()).toEqual([...files]);
    const found = await latestCheckpoint(directory);
    expect(found).toMatchObject({ step: 9, path: at(directory, 9), skipped: [] });
    expect(found!.state).toMatchObject({ step: 9, tokens: 9 * 96, seed: 5, config, evaluation: null });
    const loaded = await loadCheckpoint(found!.path);
    expect(await bitsOf(loaded.params)).toEqual(await bitsOf(options.params));
    expect(loaded.optimizer.meta).toEqual(options.optimizer.stateDict().meta);
    expect(await bitsOf(loaded.optimizer.tensors)).toEqual(await bitsOf(options.optimizer.stateDict().tensors));
  });

  it("are taken at the end alone if no interval is given", async () => {
    const directory = temporaryFolder();
    const events = await collect(train(setUp(directory, { checkpoint: { directory } })));
    expect(events.filter(({ type }) => type === "checkpoint").map(({ step }) => step)).toEqual([6]);
  });

  it("remove what killed writers left, and nothing else", async () => {
    const directory = await trained();
    mkdirSync(join(directory, ".step-00000008.0f9c-11aa.tmp"));
    writeFileSync(join(directory, ".step-00000008.0f9c-11aa.tmp", "model.safetensors"), "half");
    writeFileSync(at(directory, 4, ".state.json.0f9c-11aa.tmp"), "half");
    writeFileSync(at(directory, 4, "notes.txt"), "mine");
    writeFileSync(join(directory, "notes.txt"), "mine");
    await collect(train(setUp(directory, { resume: true })));
    expect(readdirSync(at(directory, 4)).sort()).toEqual([...files, "notes.txt"].sort());
    expect(readdirSync(directory).sort()).toEqual(["notes.txt", "step-00000002", "step-00000004", "step-00000006"]);
  });

  it("of another run are not mixed with those of a new one", async () => {
    const directory = await trained();
    const running = collect(train(setUp(directory)));
    await expect(running).rejects.toThrow(OptionError);
    await expect(running).rejects.toThrow(
      /holds checkpoints of another run, up to step 6\. Continue it with resume: true/,
    );
    expect((await latestCheckpoint(directory))!.step).toBe(6);
  });

  it("are not written of parameters that are not finite; the last good one stays", async () => {
    const directory = temporaryFolder();
    const params = tinyParams();
    // Without maxGradNorm nothing guards the parameters against an infinite gradient at a finite loss.
    const optimizer = new AdamW(params, { learningRate: 1e-3 });
    const objective: TrainOptions["objective"] = (p, batch, { step }) =>
      step === 4 ? tinyLoss(p, batch).add(p["norm.weight"]!.mul(0).sqrt().sum()) : tinyLoss(p, batch);
    const running = collect(train(setUp(directory, { params, optimizer, objective })));
    await expect(running).rejects.toThrow(NonFiniteError);
    await expect(running).rejects.toThrow(
      /a parameter is not finite after step 4.*the last checkpoint is .*step-00000002/,
    );
    expect((await latestCheckpoint(directory))!.step).toBe(2);
  });

  it("are named by the message of a NaN loss", async () => {
    const directory = temporaryFolder();
    const objective: TrainOptions["objective"] = (p, batch, { step }) =>
      tinyLoss(p, batch).mul(step === 6 ? Number.NaN : 1);
    await expect(collect(train(setUp(directory, { objective })))).rejects.toThrow(
      /loss is NaN at step 6;.*the last checkpoint is .*step-00000004/,
    );
    expect(readdirSync(directory).sort()).toEqual(["step-00000002", "step-00000004"]);
  });
});

describe("latestCheckpoint", () => {
  it("finds nothing in an empty or missing directory", async () => {
    const folder = temporaryFolder();
    expect(await latestCheckpoint(folder)).toBeUndefined();
    expect(await latestCheckpoint(join(folder, "missing"))).toBeUndefined();
  });

  const damages: [string, (path: string) => void][] = [
    ...files.flatMap((file): [string, (path: string) => void][] => [
      [`${file} is missing`, (path) => rmSync(join(path, file))],
      [`${file} is empty`, (path) => truncateSync(join(path, file), 0)],
      [
        `${file} is truncated by a byte`,
        (path) => truncateSync(join(path, file), readFileSync(join(path, file)).length - 2),
      ],
      [`${file} has bytes after its end`, (path) => appendFileSync(join(path, file), "x")],
      ...[0, 0.001, 0.05, 0.3, 0.5, 0.75, 0.999].map((place): [string, (path: string) => void] => [
        `a byte at ${place} of ${file} is flipped`,
        (path) => flipByte(join(path, file), place),
      ]),
    ]),
    ["the folder is empty", (path) => replaceBy(path, () => mkdirSync(path))],
    ["a file stands in its place", (path) => replaceBy(path, () => writeFileSync(path, "x"))],
    [
      "its files are those of another step",
      (path) => replaceBy(path, () => cpSync(join(path, "..", "step-00000002"), path, { recursive: true })),
    ],
    [
      "one file is that of another step",
      (path) => cpSync(join(path, "..", "step-00000002", files[0]), join(path, files[0])),
    ],
    ["the format is newer", (path) => edit(join(path, files[2]), '"format": 1', '"format": 2')],
    ["a number in the state was edited", (path) => edit(join(path, files[2]), '"tokens": 576', '"tokens": 577')],
  ];

  it("falls back to the one before, with a reason, whatever byte of whatever file is damaged", async () => {
    const original = await trained();
    for (const [what, damage] of damages) {
      const directory = join(temporaryFolder(), "copy");
      cpSync(original, directory, { recursive: true });
      damage(at(directory, 6));
      const found = await latestCheckpoint(directory);
      expect(found, what).toMatchObject({ step: 4, path: at(directory, 4) });
      expect(found!.skipped, what).toHaveLength(1);
      expect(found!.skipped[0]!.path).toBe(at(directory, 6));
      expect(found!.skipped[0]!.reason, what).toMatch(/^\[train\] .*step-00000006 /);
      await expect(loadCheckpoint(at(directory, 6)), what).rejects.toThrow(/step-00000006/);
    }
  });

  it("skips any flipped bit of the state", async () => {
    const directory = await trained();
    const path = at(directory, 6, "state.json");
    const bytes = readFileSync(path);
    for (let i = 0; i < bytes.length; i += 1 + (i % 5)) {
      const damaged = Buffer.from(bytes);
      damaged[i]! ^= 1 << (i % 8);
      writeFileSync(path, damaged);
      const found = await latestCheckpoint(directory);
      // White space exchanged for other white space is no damage.
      if (found!.step !== 4) expect(JSON.parse(damaged.toString())).toEqual(JSON.parse(bytes.toString()));
    }
  });

  it("throws with all reasons if none is valid, and a resume does too", async () => {
    const directory = await trained();
    truncateSync(at(directory, 2, files[0]), 10);
    rmSync(at(directory, 4, files[1]));
    flipByte(at(directory, 6, files[2]), 0.4);
    const finding = latestCheckpoint(directory);
    await expect(finding).rejects.toThrow(FormatError);
    await expect(finding).rejects.toThrow(
      /none of the 3 checkpoints in .*step-00000006.*state\.json.*step-00000004.*missing.*step-00000002.*has 10 bytes/s,
    );
    await expect(collect(train(setUp(directory, { resume: true })))).rejects.toThrow(FormatError);
  });

  it("lets a resumed run replace the damaged one when it gets there", async () => {
    const directory = await trained();
    const { params: straight } = await loadCheckpoint(at(directory, 6));
    flipByte(at(directory, 6, files[0]), 0.5);
    const options = setUp(directory, { resume: true, steps: 6, params: tinyParams(77) });
    const events = await collect(train(options));
    expect(events[0]).toMatchObject({ type: "resumed", step: 4, skipped: [{ path: at(directory, 6) }] });
    expect(await latestCheckpoint(directory)).toMatchObject({ step: 6, skipped: [] });
    expect(readdirSync(directory).sort()).toEqual(["step-00000002", "step-00000004", "step-00000006"]);
    expect(await bitsOf(options.params)).toEqual(await bitsOf(straight));
  });

  it("reads a checkpoint under another name when asked for by path", async () => {
    const directory = await trained();
    renameSync(at(directory, 6), join(directory, "best"));
    expect((await loadCheckpoint(join(directory, "best"))).step).toBe(6);
    expect((await latestCheckpoint(directory))!.step).toBe(4);
  });
});

describe("a checkpoint that doesn't fit", () => {
  it("is refused with everything that differs, and nothing is changed", async () => {
    const directory = await trained();
    const { "head.weight": head, "norm.weight": norm, ...rest } = tinyParams(9);
    const params = { ...rest, "norm.weight": norm!.reshape([4, 4]), "extra.weight": head! };
    const before = await bitsOf(params);
    const resuming = collect(train(setUp(directory, { params, resume: true })));
    await expect(resuming).rejects.toThrow(FormatError);
    await expect(resuming).rejects.toThrow(
      /"norm\.weight" was float32 \[16\], is float32 \[4, 4\]; "extra\.weight" is missing; "head\.weight" is not in the model/,
    );
    expect(await bitsOf(params)).toEqual(before);
  });

  it.each<[string, () => Partial<TrainOptions>, RegExp]>([
    [
      "optimizer",
      () => {
        const params = tinyParams();
        return { params, optimizer: tinyOptimizer("sonew", params) };
      },
      /optimizer was "adamw", is "sonew"/,
    ],
    ["data", () => ({ data: tinyData(8, 99) }), /seed/],
    ["seed", () => ({ seed: 1 }), /seed was 0, is 1\./],
    ["number of steps", () => ({ steps: 5 }), /it is already at step 6, beyond steps 5/],
    ["gradientAccumulation", () => ({ gradientAccumulation: 2 }), /gradientAccumulation was 1, is 2/],
    [
      "hyper-parameters",
      () => {
        const params = tinyParams();
        const groups = [{ params: /embed/, weightDecay: 0 }];
        return { params, optimizer: new AdamW(params, { learningRate: 1, beta2: 0.95, groups }), seed: 3 };
      },
      /: seed was 0, is 3; maxGradNorm was 1, is not given; beta2 was 0\.999, is 0\.95 \(of "embed\.weight" and 9 more\); weightDecay was 0\.01, is 0 \(of "embed\.weight"\)\. Set/,
    ],
  ])("by its %s is refused before the parameters change", async (_, other, message) => {
    const directory = await trained();
    const params = tinyParams(9);
    const options = setUp(directory, { params, resume: true, ...other() });
    const before = await bitsOf(options.params);
    await expect(collect(train(options))).rejects.toThrow(message);
    expect(await bitsOf(options.params)).toEqual(before);
    disposeTensors(params);
  });
});

describe("a resumed run may have", () => {
  it("another learning rate and more steps, and groups that come to the same", async () => {
    const directory = await trained();
    const params = tinyParams(9);
    const groups = [{ params: /norm/, learningRate: 0.5 }];
    const optimizer = new AdamW(params, { learningRate: () => 0.25, maxGradNorm: 1, groups });
    const events = await collect(train(setUp(directory, { params, optimizer, resume: true, steps: 7 })));
    expect(events.slice(0, 2)).toMatchObject([{ type: "resumed" }, { type: "step", step: 7, learningRate: 0.25 }]);
  });

  it("another batch size: the data go on behind the last window used", async () => {
    const directory = await trained();
    const data = tinyData(4);
    await collect(train(setUp(directory, { data, resume: true, steps: 7 })));
    const straight = tinyData(4);
    for (let i = 0; i < 13; i++) straight.next();
    expect(data.state()).toEqual(straight.state());
  });
});

describe("a checkpoint directory that can't be used", () => {
  it("is an IoError that says why", async () => {
    const file = join(temporaryFolder(), "file");
    writeFileSync(file, "x");
    for (const directory of [file, join(file, "below")]) {
      const running = collect(train(setUp(directory)));
      await expect(running).rejects.toThrow(IoError);
      await expect(running).rejects.toThrow(/ENOTDIR/);
    }
    expect(readFileSync(file, "utf8")).toBe("x");
  });
});

function flipByte(path: string, place: number): void {
  const bytes = readFileSync(path);
  const index = Math.min(bytes.length - 1, Math.floor(bytes.length * place));
  bytes[index]! ^= 0xff;
  writeFileSync(path, bytes);
}

function replaceBy(path: string, make: () => void): void {
  rmSync(path, { recursive: true });
  make();
}

function edit(path: string, from: string, to: string): void {
  const text = readFileSync(path, "utf8");
  if (!text.includes(from)) throw new Error(`${path} doesn't contain ${from}`);
  writeFileSync(path, text.replace(from, to));
}
