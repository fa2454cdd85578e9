/**
 * Builds the engine with run-time checks and runs what touches native memory under them: the C++ tests with AddressSanitizer and
 * UndefinedBehaviorSanitizer, again with ThreadSanitizer (the executor, the thread pool, the kernels' tasks), and the addon in Node.js
 * under the first two, with the tests of the tensor package and the fuzz. Takes some minutes; needs GCC or Clang with these runtimes.
 *
 *   npm run test:sanitizers                      everything
 *   npm run test:sanitizers -- address thread    these of: address, thread, addon
 */
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { Checks } from "./lib/counted.mjs";
import { buildEngineTests } from "./lib/engine-build.mjs";
import { capture, run } from "./lib/process.mjs";
import { cacheDir, root } from "./lib/workspace.mjs";

const native = join(root, "native");
const folder = (name) => join(cacheDir, "sanitizers", name);
const parallel = ["--parallel", String(availableParallelism())];

function runOrThrow(command, args, options) {
  const status = run(command, args, options);
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status} (messages above)`);
}

/** The C++ tests; every kernel of every instruction set that this CPU has. */
function engineTests(name, sanitizers, env) {
  const program = buildEngineTests(folder(name), [`-DLLMEFF_SANITIZE=${sanitizers}`]);
  if (program === undefined) throw new Error("the engine could not be built (messages above)");
  runOrThrow(program, [], { env: { ...process.env, ...env } });
}

/** Where the compiler keeps a runtime that must be loaded before Node's own code. */
function runtime(library) {
  const { status, stdout } = capture(process.env.CXX ?? "c++", [`-print-file-name=${library}`]);
  const path = stdout.trim();
  if (status !== 0 || path === library)
    throw new Error(`the compiler has no ${library}; install its sanitizer runtimes`);
  return path;
}

/** The addon inside of Node.js, which keeps memory of its own at its end: leaks are looked for in the C++ tests. */
function addonTests() {
  const build = folder("addon");
  const manifest = createRequire(join(native, "package.json")).resolve("cmake-js/package.json");
  const args = ["build", "--directory", native, "--out", build, "--config", "Release", "--target", "llmeff"];
  const cmakeJs = join(dirname(manifest), "bin", "cmake-js");
  runOrThrow(process.execPath, [cmakeJs, ...args, "--CDLLMEFF_SANITIZE=address,undefined", ...parallel]);
  const env = {
    ...process.env,
    LLMEFF_NATIVE_PATH: join(build, "Release", "llmeff.node"),
    LD_PRELOAD: [runtime("libasan.so"), runtime("libubsan.so")].join(":"),
    ASAN_OPTIONS: "detect_leaks=0",
    UBSAN_OPTIONS: "print_stacktrace=1",
    LLMEFF_FUZZ: process.env.LLMEFF_FUZZ ?? "20000:2",
  };
  // Memory the finalizers give back is measured elsewhere: the sanitizer keeps freed blocks for a while.
  const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
  runOrThrow(process.execPath, [vitest, "run", "packages/tensor", "native/ts"], { env });
}

const runs = {
  address: () => engineTests("address", "address,undefined", { ASAN_OPTIONS: "detect_leaks=1" }),
  thread: () => engineTests("thread", "thread", { LLMEFF_NUM_THREADS: "4" }),
  addon: addonTests,
};
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
