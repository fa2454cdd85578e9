/** What the tests on a GPU share: whether there is one, and programs in processes of their own. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { build } from "tsup";

const here = dirname(fileURLToPath(import.meta.url));
const addonPath = process.env.LLMEFF_NATIVE_PATH ?? join(here, "../../native/build/Release/llmeff.node");

/** `npm run gpu-check` says so; elsewhere these tests have nothing to run on. */
export const onGpu = process.env.LLMEFF_DEVICE?.startsWith("cuda") ?? false;
/** Whether the engine was built with its CUDA part, be there a GPU or not. */
export const hasCudaLibrary = existsSync(process.env.LLMEFF_CUDA_PATH ?? join(dirname(addonPath), "llmeff-cuda.so"));

/** Bundles `test/gpu/NAME.ts` with the workspace's sources. @returns the path of the program in `folder` */
export async function bundle(name: string, folder: string): Promise<string> {
  await build({
    entry: [join(here, `${name}.ts`)],
    outDir: folder,
    format: ["esm"],
    outExtension: () => ({ js: ".mjs" }),
    target: "node20",
    noExternal: [/^@llmeff\//],
    config: false,
    silent: true,
    esbuildOptions(options) {
      options.conditions = ["@llmeff/source"];
    },
  });
  return join(folder, `${name}.mjs`);
}

/** A running program, its lines one by one, and how it ended. */
export class Program {
  readonly lines: string[] = [];
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; stderr: string }>;
  readonly #child: ChildProcess;
  readonly #waiting: { test: (line: string) => boolean; done: (line: string | undefined) => void }[] = [];

  constructor(path: string, args: readonly string[] = [], environment: NodeJS.ProcessEnv = {}) {
    const env = { LLMEFF_NATIVE_PATH: addonPath, ...process.env, ...environment };
    this.#child = spawn(process.execPath, [path, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    createInterface({ input: this.#child.stdout! }).on("line", (line) => {
      this.lines.push(line);
      for (const { done } of this.#take(({ test }) => test(line))) done(line);
    });
    this.ended = new Promise((resolve, reject) => {
      this.#child.once("error", reject);
      this.#child.once("close", (code, signal) => {
        for (const { done } of this.#take(() => true)) done(undefined);
        resolve({ code, signal, stderr });
      });
    });
  }

  #take(which: (waiting: { test: (line: string) => boolean }) => boolean) {
    const taken = this.#waiting.filter(which);
    for (const one of taken) this.#waiting.splice(this.#waiting.indexOf(one), 1);
    return taken;
  }

  /** The next line that begins like this; undefined if the program ends before. */
  line(beginning: string): Promise<string | undefined> {
    const test = (line: string) => line.startsWith(beginning);
    return new Promise((done) => {
      this.#waiting.push({ test, done });
    });
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** The last line, after an end without an error. @throws with what it wrote to stderr */
  async result(): Promise<string> {
    const { code, signal, stderr } = await this.ended;
    if (code !== 0) throw new Error(`[test] the program ended with ${signal ?? code}: ${stderr}`);
    return this.lines.at(-1) ?? "";
  }
}
