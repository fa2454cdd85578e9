import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "tsup";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const here = dirname(fileURLToPath(import.meta.url));
const addon = process.env.LLMEFF_NATIVE_PATH ?? join(here, "..", "build", "Release", "llmeff.node");

describe("engine", () => {
  let folder = "";
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "llmeff-load-"));
    await build({
      config: false,
      entry: { index: join(here, "index.ts") },
      outDir: join(folder, "dist"),
      format: ["esm"],
      outExtension: () => ({ js: ".mjs" }),
      tsconfig: join(here, "..", "tsconfig.json"),
      silent: true,
    });
    const program =
      'import { engine } from "./dist/index.mjs";\ntry {\n  const { isa, availableIsas, numThreads } = engine().info();\n  console.log(JSON.stringify({ isa, availableIsas, numThreads, memory: engine().memory() }));\n} catch ({ name, code, message }) {\n  console.log(JSON.stringify({ name, code, message }));\n}\n';
    writeFileSync(join(folder, "program.mjs"), program);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** What a process prints that loads the engine, from a folder without any addon. */
  function load(environment: Record<string, string>): Promise<Record<string, unknown>> {
    const { LLMEFF_NATIVE_PATH: _, LLMEFF_CPU_ISA: __, LLMEFF_NUM_THREADS: ___, ...clean } = process.env;
    return new Promise((resolve, reject) => {
      execFile(
        process.execPath,
        ["program.mjs"],
        { cwd: folder, env: { ...clean, ...environment } },
        (error, stdout, stderr) =>
          error
            ? reject(new Error(`${error.message}\n${stderr}`))
            : resolve(JSON.parse(stdout) as Record<string, unknown>),
      );
    });
  }

  it("loads the file that LLMEFF_NATIVE_PATH names, also relative to the working directory", async () => {
    expect(existsSync(addon)).toBe(true);
    expect(await load({ LLMEFF_NATIVE_PATH: addon })).toHaveProperty("memory");
    expect(await load({ LLMEFF_NATIVE_PATH: relative(folder, addon) })).toHaveProperty("memory");
  });

  it("says every place that it tried, why it failed, and what to do", async () => {
    const { code, message } = await load({});
    expect(code).toBe("ERR_NATIVE_LOAD");
    expect(message).toContain(join("build", "Release", "llmeff.node"));
    expect(message).toContain(`@llmeff/native-${process.platform}-${process.arch} (not found)`);
    expect(message).toMatch(/To fix: .*\n?.*build from source/);
  });

  it("doesn't replace a named file by another that it finds", async () => {
    const broken = join(folder, "broken.node");
    writeFileSync(broken, "not a library");
    const { code, message } = await load({ LLMEFF_NATIVE_PATH: broken });
    expect(code).toBe("ERR_NATIVE_LOAD");
    expect(message).toContain(`${broken} (ERR_DLOPEN_FAILED`);
    expect(message).not.toContain("@llmeff/native-");
    expect((await load({ LLMEFF_NATIVE_PATH: "missing.node" })).message).toContain(
      `${join(folder, "missing.node")} (not found)`,
    );
  });

  it("refuses an instruction set that is not to be had, naming those that are", async () => {
    const { availableIsas } = await load({ LLMEFF_NATIVE_PATH: addon });
    const error = await load({ LLMEFF_NATIVE_PATH: addon, LLMEFF_CPU_ISA: "mmx" });
    const isas = (availableIsas as string[]).join(", ");
    expect(error).toMatchObject({
      name: "OptionError",
      code: "ERR_OPTION",
      message: expect.stringContaining(`[LLMEFF_CPU_ISA] expected one of ${isas}; received "mmx"`),
    });
  });

  it("uses the number of threads that LLMEFF_NUM_THREADS names, and the cores for what is no number", async () => {
    expect(await load({ LLMEFF_NATIVE_PATH: addon, LLMEFF_NUM_THREADS: "3" })).toMatchObject({ numThreads: 3 });
    const { numThreads } = await load({ LLMEFF_NATIVE_PATH: addon });
    for (const bad of ["0", "-2", "many", "1e9", ""]) {
      expect(await load({ LLMEFF_NATIVE_PATH: addon, LLMEFF_NUM_THREADS: bad })).toMatchObject({ numThreads });
    }
  });

  it("looks for the CUDA library where LLMEFF_CUDA_PATH says, and nowhere else", async () => {
    const program =
      'import { engine } from "./dist/index.mjs";\ntry {\n  engine().cudaDevices();\n} catch ({ name, code, message }) {\n  console.log(JSON.stringify({ name, code, message }));\n}\n';
    writeFileSync(join(folder, "cuda.mjs"), program);
    const { stdout } = await promisify(execFile)(process.execPath, ["cuda.mjs"], {
      cwd: folder,
      env: { ...process.env, LLMEFF_NATIVE_PATH: addon, LLMEFF_CUDA_PATH: "missing.so" },
    });
    const { name, code, message } = JSON.parse(stdout);
    expect({ name, code }).toEqual({ name: "DeviceError", code: "ERR_DEVICE" });
    expect(message).toContain(join(folder, "missing.so"));
    expect(message).not.toContain("llmeff-cuda.so");
  });

  it("frees no block of one thread under its queued work when another empties the cache", async () => {
    const program = `
import { Worker, isMainThread } from "node:worker_threads";
import { engine } from "./dist/index.mjs";
const native = engine();
if (isMainThread) {
  const worker = new Worker(new URL(import.meta.url));
  await new Promise((resolve) => worker.once("message", resolve));
  for (const end = Date.now() + 1500; Date.now() < end; ) {
    for (let i = 0; i < 4; i++) {
      const x = native.create(0, 0, 16 << 20);
      native.op.fill(i, x);
      native.release(x);
    }
    await native.synchronize();
  }
  await worker.terminate();
  console.log(JSON.stringify({ handles: native.memory().handles }));
} else {
  const { parentPort } = await import("node:worker_threads");
  parentPort.postMessage("running");
  for (;;) native.emptyCache();
}
`;
    writeFileSync(join(folder, "cache.mjs"), program);
    const { stdout } = await promisify(execFile)(process.execPath, ["cache.mjs"], {
      cwd: folder,
      env: { ...process.env, LLMEFF_NATIVE_PATH: addon },
    });
    expect(JSON.parse(stdout)).toEqual({ handles: 0 });
  });
});
