/**
 * Builds the engine with run-time checks and runs what touches native memory under them: the C++ tests with AddressSanitizer and
 * UndefinedBehaviorSanitizer, again with ThreadSanitizer (the executor, the thread pool, the kernels' tasks), and the addon in Node.js
 * under the first two, with the tests of the tensor package and the fuzz. Needs GCC on Linux and its sanitizers' runtimes.
 *
 *   npm run test:sanitizers                      everything
 *   npm run test:sanitizers -- address thread    these of: address, thread, addon
 */
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { Checks } from "./lib/counted.mjs";
import { capture, run } from "./lib/process.mjs";
import { cacheDir, root } from "./lib/workspace.mjs";

const native = join(root, "native");
const memory = { name: "address", sanitizers: "address,undefined", libraries: ["libasan.so", "libubsan.so"] };
const threads = { name: "thread", sanitizers: "thread", libraries: ["libtsan.so"] };

function runOrThrow(command, args, options) {
  const status = run(command, args, options);
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status} (messages above)`);
}

/** Paths of the runtimes: a program that was not built with them (Node.js) must load them before its own code. */
function runtimes({ libraries }) {
  const compiler = process.env.CXX ?? "c++";
  return libraries.map((library) => {
    // Where a compiler has no such file, it answers with the name alone.
    const { status, stdout } = capture(compiler, [`-print-file-name=${library}`]);
    const path = stdout.trim();
    if (status === 0 && path !== library) return path;
    throw new Error(
      `${compiler} has no ${library}. Install GCC with its sanitizers: on Debian and Ubuntu apt-get install g++ (the package ` +
        "libgcc-N-dev has them), on Fedora dnf install libasan libubsan libtsan; or name another compiler in CXX.",
    );
  });
}

/** One folder for each set of checks: the C++ tests and the addon share the objects of the kernels. */
function build(checked, target, settings = []) {
  const folder = join(cacheDir, "sanitizers", checked.name);
  const manifest = createRequire(join(native, "package.json")).resolve("cmake-js/package.json");
  const cmakeJs = join(dirname(manifest), "bin", "cmake-js");
  const args = ["build", "--directory", native, "--out", folder, "--config", "Release", "--target", target];
  const definitions = [`LLMEFF_SANITIZE=${checked.sanitizers}`, "LLMEFF_TESTS=ON", ...settings].map(
    (it) => `--CD${it}`,
  );
  const parallel = ["--parallel", String(availableParallelism())];
  runOrThrow(process.execPath, [cmakeJs, ...args, ...definitions, ...parallel], { stdio: ["ignore", 2, 2] });
  return folder;
}

/** Every kernel of every instruction set that this CPU has. */
function memoryOfEngine() {
  runtimes(memory);
  const program = join(build(memory, "engine_tests"), "engine_tests");
  const env = { ...process.env, ASAN_OPTIONS: "detect_leaks=1", UBSAN_OPTIONS: "print_stacktrace=1" };
  runOrThrow(program, [], { env });
}

/** Kernels are the same source for every instruction set and cut their work into the same tasks: one set is enough here. */
function threadsOfEngine() {
  runtimes(threads);
  const program = join(
    build(threads, "engine_tests", process.arch === "x64" ? ["LLMEFF_ISAS=generic"] : []),
    "engine_tests",
  );
  // The shadow memory has fixed places, which a kernel that shuffles addresses widely may already have given away.
  const fixed = ["setarch", process.arch === "x64" ? "x86_64" : "aarch64", "-R"];
  const prefix = capture(fixed[0], [...fixed.slice(1), "true"]).status === 0 ? fixed : [];
  const [command, ...args] = [...prefix, program];
  runOrThrow(command, args, { env: { ...process.env, LLMEFF_NUM_THREADS: "4" } });
}

/** Node.js keeps memory of its own at its end: leaks are looked for in the C++ tests. */
function addon() {
  const preload = runtimes(memory).join(":");
  const folder = build(memory, "llmeff");
  const env = {
    ...process.env,
    LLMEFF_NATIVE_PATH: join(folder, "Release", "llmeff.node"),
    LD_PRELOAD: preload,
    ASAN_OPTIONS: "detect_leaks=0",
    UBSAN_OPTIONS: "print_stacktrace=1",
    LLMEFF_FUZZ: process.env.LLMEFF_FUZZ ?? "20000:2",
  };
  const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
  runOrThrow(process.execPath, [vitest, "run", "packages/tensor", "native/ts"], { env });
}

const runs = { address: memoryOfEngine, thread: threadsOfEngine, addon };
const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !Object.hasOwn(runs, name));
if (unknown.length > 0) {
  console.error(`[sanitizers] expected ${Object.keys(runs).join(", ")}; received ${unknown.join(", ")}.`);
  process.exit(1);
}
const checks = new Checks();
for (const [name, body] of Object.entries(runs))
  if (chosen.length === 0 || chosen.includes(name)) await checks.check(`${name}: no report`, body);
checks.finish();
