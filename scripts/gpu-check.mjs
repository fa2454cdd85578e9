/**
 * Checks the CUDA engine on this machine's GPU: builds it, runs its C++ tests, the same test suites that the CPU passes with
 * `LLMEFF_DEVICE=cuda`, failures on purpose, NVIDIA's compute-sanitizer over the C++ tests, and the benchmark. `npm run gpu-check` sets up first; on a machine
 * without npm or network `node scripts/gpu-check.mjs --no-build` takes what is there.
 *
 *   npm run gpu-check                              everything
 *   npm run gpu-check -- kernels suites            these of: kernels, suites, failures, memcheck, racecheck, bench
 *   npm run gpu-check -- --no-build                with native/build as it is; so with LLMEFF_NATIVE_PATH
 *   npm run gpu-check -- kernels --tests attention the C++ tests whose names contain this; also of memcheck and racecheck,
 *                                                where racecheck takes by itself those of kernels with shared memory
 *   npm run gpu-check -- --smoke                   the benchmark at tiny sizes
 */
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { addonPath, buildDir, isUpToDate, runCmakeJs } from "../native/scripts/cmake-js.mjs";
import { racecheckFilter, sanitize, sanitizerPath } from "./lib/compute-sanitizer.mjs";
import { add, format, runCounted } from "./lib/counted.mjs";
import { capture, run } from "./lib/process.mjs";
import { runVitest } from "./lib/vitest.mjs";
import { root } from "./lib/workspace.mjs";

const suites = ["tensor", "optim", "models", "train", "distill", "cli"].map((name) => `packages/${name}`);
const cudaTests = join(buildDir, "cuda_tests");

function fail(message) {
  console.error(`[gpu-check] ${message}`);
  return { passed: 0, failed: 1 };
}

/** The addon with the CUDA library beside it. */
function buildAddon() {
  if (!isUpToDate() && runCmakeJs("build") !== 0) return false;
  if (existsSync(join(dirname(addonPath), "llmeff-cuda.so"))) return true;
  console.error(
    "[gpu-check] the engine was built without CUDA. Put nvcc on the PATH (CUDA ≥ 13), remove native/build, repeat.",
  );
  return false;
}

function buildKernelTests() {
  const stdio = ["ignore", 2, 2];
  const build = ["--build", buildDir, "--config", "Release", "--target", "cuda_tests"];
  return (
    run("cmake", ["-DLLMEFF_TESTS=ON", buildDir], { stdio }) === 0 &&
    run("cmake", [...build, "--parallel", String(availableParallelism())], { stdio }) === 0
  );
}

function kernels(filter) {
  if (!existsSync(cudaTests)) return fail(`there is no ${cudaTests}. Leave --no-build out, or build its target.`);
  return runCounted(cudaTests, filter);
}

/** What uses shared memory, which is all that racecheck looks at; the values in it make no difference. */
const sharing =
  /^(?!.*(?:not_finite|infinit|nan_|outside)).*(?:attention|simplicial|linear|grouped|cross_entropy|norm|softmax|reduce|variance|log_sum_exp|argsort|top_k|cumsum|embedding_grad|sonew|copy|conv2d|factorizations)/;

/** @param filterOf - from the sanitizer to its options and what they leave out */
function sanitized(tool, filterOf, concerns = /./) {
  return (filter) => {
    const sanitizer = sanitizerPath();
    if (sanitizer === undefined) return fail("compute-sanitizer is not here. It comes with the CUDA toolkit.");
    if (!existsSync(cudaTests)) return fail(`there is no ${cudaTests}. Leave --no-build out, or build its target.`);
    const tests = capture(cudaTests, ["--list"]).stdout.trim().split("\n");
    const chosen = tests.filter((name) => (filter.length > 0 ? name.includes(filter[0]) : concerns.test(name)));
    if (chosen.length === 0) return fail(`there is no test with ${filter[0]} in its name.`);
    const { options, leftOut } = filterOf(sanitizer);
    if (leftOut !== undefined) console.log(leftOut);
    return sanitize({ sanitizer, tool, options, program: cudaTests, tests: chosen });
  };
}

/** Vitest with tensors on the GPU. */
async function onGpu(args) {
  const { files, crashed } = await runVitest(args, { LLMEFF_DEVICE: "cuda" });
  for (const name of files.flatMap(({ skipped }) => skipped)) console.log(`not run on a GPU: ${name}`);
  const counts = files.flatMap((file) => [...file.suites.values()]);
  return counts.reduce(add, { passed: 0, failed: crashed ? 1 : 0 });
}

function bench(_filter, { smoke }) {
  const status = run(process.execPath, [join(root, "bench", "run.mjs"), "cuda", ...(smoke ? ["--smoke"] : [])]);
  return status === 0 ? { passed: 1, failed: 0 } : fail(`bench -- cuda ended with ${status}.`);
}

const checks = {
  kernels,
  // A GPU is one for all: more processes on it wait for each other, and each holds memory.
  suites: () => onGpu([...suites, "--maxWorkers=4"]),
  // One at a time: some take all the memory that there is. Those of two GPUs are named as not run where there is one.
  failures: () => onGpu(["test/gpu", "--no-file-parallelism"]),
  memcheck: sanitized("memcheck", () => ({ options: ["--leak-check", "no"] })),
  racecheck: sanitized("racecheck", racecheckFilter, sharing),
  bench,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    build: { type: "boolean", default: true },
    smoke: { type: "boolean", default: false },
    tests: { type: "string" },
  },
  allowNegative: true,
});
const chosen = positionals.length > 0 ? positionals : Object.keys(checks);
const unknown = chosen.filter((name) => !Object.hasOwn(checks, name));
if (unknown.length > 0) {
  console.error(`[gpu-check] expected ${Object.keys(checks).join(", ")}; received ${unknown.join(", ")}.`);
  process.exit(1);
}

const build = values.build && !process.env.LLMEFF_NATIVE_PATH;
if (build && !(buildAddon() && buildKernelTests())) {
  console.log(format({ passed: 0, failed: 1 }));
  process.exit(1);
}
console.log(
  capture("nvidia-smi", ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]).stdout.trim(),
);
const results = new Map();
for (const name of chosen) {
  console.log(`\n== ${name}`);
  results.set(name, await checks[name](values.tests === undefined ? [] : [values.tests], values));
}
console.log("");
for (const [name, counts] of results) console.log(`${name}: ${format(counts)}`);
const total = [...results.values()].reduce(add);
console.log(format(total));
process.exitCode = total.failed > 0 ? 1 : 0;
