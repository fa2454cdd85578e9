/** Measurements run in processes of their own: threads and instruction set are fixed when the engine loads. */
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const bench = dirname(dirname(fileURLToPath(import.meta.url)));

/** Runs a program to its end and returns the JSON lines that it wrote; its other output is passed on as messages. */
export function jsonLinesOf(command, args, env = {}) {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      output += text;
    });
    child.once("error", fail);
    child.once("close", (code, signal) => {
      if (code !== 0) return fail(new Error(`[bench] ${[command, ...args].join(" ")} ended with ${signal ?? code}.`));
      const lines = output.split("\n").filter((line) => line.startsWith("{"));
      done(lines.map((line) => JSON.parse(line)));
    });
  });
}

/** Runs `bench/FILE` with one JSON argument. `isa` undefined: the best that the CPU has; `device`: where tensors are made. */
export function measure(file, options, { threads, isa, device } = {}) {
  return jsonLinesOf(process.execPath, ["--expose-gc", join(bench, file), JSON.stringify(options)], {
    ...(threads === undefined ? {} : { LLMEFF_NUM_THREADS: String(threads) }),
    ...(isa === undefined ? {} : { LLMEFF_CPU_ISA: isa }),
    ...(device === undefined ? {} : { LLMEFF_DEVICE: device }),
  });
}

/** In the child: the options that `measure` gave. */
export const childOptions = () => JSON.parse(process.argv[2] ?? "{}");

/** In the child: hands a result to the parent. */
export const emit = (result) => console.log(JSON.stringify(result));

/** In the child: throws unless a result is right. Nothing is timed before it was checked. */
export function expect(ok, message) {
  if (!ok) throw new Error(`[bench] wrong result: ${message}`);
}
