/**
 * The CUDA engine's C++ tests under NVIDIA's compute-sanitizer: without their largest shapes, each in a process of its own, several at a time, for one
 * of them keeps a core busy.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { capture } from "./process.mjs";
import { root } from "./workspace.mjs";

/** On the PATH, or where the CUDA toolkit is installed. */
export function sanitizerPath() {
  const candidates = ["compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer"];
  return candidates.find((path) => capture(path, ["--version"]).status === 0);
}

/**
 * @param tool - `memcheck` or `racecheck`
 * @param tests - names, as `cuda_tests --list` prints them
 * @returns how many passed and failed: a finding of the sanitizer fails a test whatever its results
 */
export async function sanitize({ sanitizer, tool, options, program, tests }) {
  const folder = mkdtempSync(join(tmpdir(), "llmeff-gpu-"));
  const counts = { passed: 0, failed: 0 };
  const left = [...tests];
  const worker = async () => {
    for (let test = left.shift(); test !== undefined; test = left.shift()) {
      // The sanitizer's report goes to a file, lest it mix with the test's own lines; what it finds makes the exit code 99.
      const report = join(folder, `${test}.txt`);
      const args = ["--tool", tool, ...options, "--error-exitcode", "99", "--print-limit", "20", "--log-file", report];
      const begun = performance.now();
      const { code, output } = await ended(sanitizer, [...args, program, test, "--small"]);
      const seconds = ((performance.now() - begun) / 1e3).toFixed(0);
      counts[code === 0 ? "passed" : "failed"]++;
      console.log(`${code === 0 ? "ok  " : "FAIL"} ${test} (${seconds} s)`);
      const leftOut = output.split("\n").find((line) => line.startsWith("left out"));
      if (leftOut !== undefined) console.log(`     ${leftOut}`);
      if (code === 0) continue;
      console.log(output.trim());
      if (existsSync(report)) console.log(readFileSync(report, "utf8").trim());
    }
  };
  await Promise.all(Array.from({ length: Math.min(8, availableParallelism()) }, worker));
  rmSync(folder, { recursive: true });
  return counts;
}

function ended(command, args) {
  return new Promise((done) => {
    const child = spawn(command, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        output += text;
      });
    }
    child.once("error", (error) => done({ code: 127, output: error.message }));
    child.once("close", (code) => done({ code, output }));
  });
}
