/** The command in a folder of its own, with its output caught. */
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { readMetrics } from "@llmeff/report";
import { latestCheckpoint, loadCheckpoint } from "@llmeff/train";
import { type Io, main } from "../src/index.js";

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** A command that runs. */
export interface Running {
  /** What it has written so far. */
  outcome: Outcome;
  /** Ctrl-C, once. */
  interrupt(): void;
  ended: Promise<Outcome>;
}

export class Workplace implements AsyncDisposable {
  private constructor(readonly folder: string) {}

  static async create(): Promise<Workplace> {
    return new Workplace(await mkdtemp(join(tmpdir(), "llmeff-cli-")));
  }

  path(...parts: string[]): string {
    return join(this.folder, ...parts);
  }

  async write(name: string, content: unknown): Promise<void> {
    await mkdir(dirname(this.path(name)), { recursive: true });
    await writeFile(this.path(name), typeof content === "string" ? content : JSON.stringify(content, null, 2));
  }

  async copy(from: string, to: string): Promise<void> {
    await mkdir(dirname(this.path(to)), { recursive: true });
    await copyFile(this.path(from), this.path(to));
  }

  async read(...parts: string[]): Promise<string> {
    return readFile(this.path(...parts), "utf8");
  }

  /** @param interruptAt - Ctrl-C as soon as the output holds this text */
  async run(
    argv: string[],
    { interruptAt, env = {} }: { interruptAt?: string; env?: Record<string, string> } = {},
  ): Promise<Outcome> {
    const running = this.start(argv, env, ({ outcome, interrupt }) => {
      if (interruptAt !== undefined && `${outcome.stdout}\n${outcome.stderr}`.includes(interruptAt)) interrupt();
    });
    return running.ended;
  }

  /** @param onOutput - called whenever something was written */
  start(argv: string[], env: Record<string, string> = {}, onOutput: (running: Running) => void = () => {}): Running {
    const outcome: Outcome = { code: 0, stdout: "", stderr: "" };
    let listener: (() => void) | undefined;
    const interrupt = () => {
      const given = listener;
      listener = undefined;
      given?.();
    };
    const running: Running = { outcome, interrupt, ended: Promise.resolve(outcome) };
    const stream = (name: "stdout" | "stderr") => ({
      columns: 160,
      write(text: string) {
        outcome[name] += text;
        onOutput(running);
      },
    });
    const io: Io = {
      stdout: stream("stdout"),
      stderr: stream("stderr"),
      env,
      cwd: this.folder,
      onInterrupt(given) {
        listener = given;
        return () => {};
      },
      exit(code) {
        throw new Error(`the command ended the process with ${code}`);
      },
    };
    running.ended = main(argv, io).then((code) => Object.assign(outcome, { code }));
    return running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

const line = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. ";
export const sampleText = line.repeat(60);

/** A text run of a second. */
export function textConfig(overrides: object = {}): Record<string, unknown> {
  return {
    name: "tiny",
    seed: 3,
    model: {
      dModel: 16,
      numLayers: 2,
      numHeads: 2,
      maxSeqLen: 64,
      attention: [{ kind: "dot" }, { kind: "simplicial", w1: 8, w2: 4 }],
    },
    data: { kind: "text", path: "text.txt", tokenizer: "character", seqLen: 16, batchSize: 4 },
    optimizer: { kind: "sonew", learningRate: 0.01, schedule: { kind: "cosine", warmupSteps: 2 }, maxGradNorm: 1 },
    training: { steps: 12, evaluateEvery: 4, evaluateWindows: 8, checkpointEvery: 4 },
    ...overrides,
  };
}

/** Weights and curves of a run, without what depends on the clock. */
export async function runResult(place: Workplace, run: string) {
  const found = await latestCheckpoint(place.path("runs", run, "checkpoints"));
  const { params, optimizer } = await loadCheckpoint(found!.path);
  const values = (tensors: typeof params) =>
    Object.entries(tensors).map(([name, tensor]) => [name, Array.from(tensor.dataSync())]);
  const records = (await readMetrics(place.path("runs", run, "metrics.jsonl"))).map((record) => {
    const { seconds: _, tokensPerSecond: __, mfu: ___, ...rest } = record;
    return rest;
  });
  return { step: found!.step, params: values(params), optimizer: values(optimizer.tensors), records };
}

/** Numbered sentences in two languages, as JSON lines. */
export function sampleDocuments(language: "en" | "de", count: number): string {
  const sentence = (i: number) =>
    language === "en"
      ? `the fox number ${i} jumps over ${i % 7} lazy dogs`
      : `der Fuchs Nummer ${i} springt über ${i % 7} faule Hunde`;
  const record = (i: number) => ({ text: sentence(i), part: i % 5 === 0 ? "held" : "kept" });
  return Array.from({ length: count }, (_, i) => JSON.stringify(record(i))).join("\n");
}

/** A run on documents of a second. */
export function documentsConfig(data: object = {}, overrides: object = {}): Record<string, unknown> {
  return textConfig({
    model: { dModel: 16, numLayers: 1, numHeads: 2 },
    data: {
      kind: "documents",
      sources: [
        { name: "en", path: "en.jsonl", weight: 1 },
        { name: "de", path: "de.jsonl", splits: { field: "part", train: "kept", valid: "held" }, weight: 2 },
      ],
      tokenizer: "byte",
      validFraction: 0.2,
      seqLen: 48,
      batchSize: 4,
      ...data,
    },
    ...overrides,
  });
}

/** A study of two parts that takes a few seconds. */
export function studyConfig(): Record<string, unknown> {
  const { name: _, optimizer: __, ...base } = textConfig();
  return {
    name: "pair",
    title: "A pair of parts",
    parts: [
      {
        name: "Relations",
        title: "Two elements",
        metric: "accuracy",
        target: 0.6,
        seeds: [1, 2],
        base: {
          model: { dModel: 16, numLayers: 1, numHeads: 2, qkNorm: true },
          data: { kind: "relationComposition", size: 2, batchSize: 32 },
          optimizer: { kind: "adamw" },
          training: { steps: 60, evaluateEvery: 10, evaluateWindows: 64, stopAt: { metric: "accuracy", value: 0.6 } },
        },
        arms: [
          { name: "2-simplicial", model: { attention: [{ kind: "simplicial" }] }, learningRates: [0.001, 0.01] },
          { name: "dot-product", learningRates: [0.001, 0.01] },
        ],
      },
      {
        name: "Text",
        title: "A fox",
        metric: "validationLoss",
        target: 3,
        base: { ...base, optimizer: { schedule: { kind: "linear", warmupSteps: 2 } } },
        sample: { prompt: "the ", tokens: 20, seed: 1 },
        arms: [
          { name: "AdamW", optimizer: { kind: "adamw" }, learningRates: [0.003, 0.01] },
          { name: "SONew", optimizer: { kind: "sonew" }, learningRates: [0.003, 0.01] },
        ],
      },
    ],
  };
}
