/** Small C programs that measure what the machine can do (ceilings) and what a BLAS does on it (peer). */
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { capture } from "../../scripts/lib/process.mjs";
import { cacheDir } from "../../scripts/lib/workspace.mjs";
import { jsonLinesOf } from "./child.mjs";

const sources = join(dirname(dirname(fileURLToPath(import.meta.url))), "native");
const builds = join(cacheDir, "bench");
const compiler = [process.env.CC, "cc", "gcc", "clang"].find(
  (name) => name && capture(name, ["--version"]).status === 0,
);

/** Compiler flags and bytes of a vector register of each instruction set of the engine. */
const isas = {
  avx512: { flags: ["-mavx512f", "-mfma"], width: 64 },
  avx2: { flags: ["-mavx2", "-mfma"], width: 32 },
  neon: { flags: [], width: 16 },
  generic: { flags: [], width: 16 },
};

/** For code whose vectors the compiler makes. */
const hostFlags = process.arch === "x64" ? ["-march=native"] : [];

const compiled = new Map();

/** Path of the program, compiled once a run; undefined if there is no compiler or library for it. */
function compile(source, name, before, after = []) {
  if (!compiled.has(name)) compiled.set(name, runCompiler(source, name, before, after));
  return compiled.get(name);
}

function runCompiler(source, name, before, after) {
  if (compiler === undefined) return undefined;
  mkdirSync(builds, { recursive: true });
  const program = join(builds, name);
  const flags = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-pthread", ...before];
  const { status } = capture(compiler, [...flags, join(sources, source), "-o", program, ...after, "-lm"]);
  return status === 0 ? program : undefined;
}

/** Most GFLOP/s that `threads` cores reach with multiply-adds in registers; undefined without a C compiler. */
export async function fmaPeak(isa, threads) {
  const { flags, width } = isas[isa];
  const program = compile("fma.c", `fma-${isa}`, [...flags, `-DWIDTH=${width}`]);
  if (program === undefined) return undefined;
  const [{ gflops }] = await jsonLinesOf(program, [String(threads)]);
  return gflops;
}

/**
 * Most GB/s of plain loops over arrays of `bytes` together, 12 bytes counted an element: `inPlace` of `a ← a·s + b`, `triad` of STREAM's
 * `a ← b + s·c`, the better of ordinary stores and stores that bypass the caches (`triadGbs`, `triadStreamGbs`). Undefined without a C compiler.
 */
export async function streamRates(threads, bytes) {
  const program = compile("stream.c", "stream", hostFlags);
  if (program === undefined) return undefined;
  const [{ gbs, triadGbs, triadStreamGbs }] = await jsonLinesOf(program, [String(threads), String(bytes)]);
  return { inPlace: gbs, triad: Math.max(triadGbs, triadStreamGbs ?? 0), triadGbs, triadStreamGbs };
}

function compileWithOpenblas(source, name, flags = []) {
  const { status, stdout } = capture("pkg-config", ["--cflags", "--libs", "openblas"]);
  const found = status === 0 ? stdout.trim().split(/\s+/) : ["-lopenblas"];
  const includes = found.filter((flag) => flag.startsWith("-I"));
  return compile(
    source,
    name,
    [...flags, ...includes],
    found.filter((flag) => !includes.includes(flag)),
  );
}

/**
 * Runs a program on OpenBLAS and returns, line by line, the better of two results: a version older than the CPU falls back to old
 * kernels, so where we use AVX-512 it may use its own as well.
 */
async function bestOpenblasLines(program, args, { threads, isa }, isBetter) {
  const env = { OPENBLAS_NUM_THREADS: String(threads) };
  const chosen = await jsonLinesOf(program, args.map(String), env);
  if (isa !== "avx512" || chosen[0].core === "SkylakeX") return chosen;
  const forced = await jsonLinesOf(program, args.map(String), { ...env, OPENBLAS_CORETYPE: "SkylakeX" });
  return chosen.map((line, i) => (isBetter(forced[i], line) ? forced[i] : line));
}

/** GFLOP/s of the system's OpenBLAS for each shape `{ m, n, k, ta, tb }` and the kernels that it chose; undefined if there is none. */
export async function openblas(shapes, threads, isa, { samples, sampleMs }) {
  const program = compileWithOpenblas("openblas.c", "openblas");
  if (program === undefined) return undefined;
  const numbers = shapes.flatMap(({ m, n, k, ta = false, tb = false }) => [m, n, k, Number(ta), Number(tb)]);
  const args = [samples, sampleMs, ...numbers];
  return bestOpenblasLines(program, args, { threads, isa }, (a, b) => a.gflops > b.gflops);
}

/** Seconds of causal attention `[B, T, H, D]` by OpenBLAS and a plain softmax; undefined if there is none. */
export async function openblasAttention({ B, T, H, D }, threads, isa, { samples }) {
  const flags = [...hostFlags, "-ffast-math"];
  const program = compileWithOpenblas("openblas_attention.c", "openblas_attention", flags);
  if (program === undefined) return undefined;
  const args = [samples, threads, B, T, H, D];
  const [line] = await bestOpenblasLines(program, args, { threads: 1, isa }, (a, b) => a.seconds < b.seconds);
  return line.seconds;
}
