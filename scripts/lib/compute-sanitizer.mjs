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
 * Kernels of Hopper (regular expressions on mangled names) whose shared memory racecheck can't judge before version 2026.3: it reports accesses that
 * a barrier stands between. Seen with 2025.3.1:
 *
 * - A warp reads a stage and joins in `__syncwarp`, its lane 0 arrives at the mbarrier "empty", the producer waits there and fills the stage again.
 *   Reported is every refill, no more and no less: 726, 593, 1942, 1774 and 242 of the statistics in five problems of the columns kernel (the first
 *   also before it had that `__syncwarp`), 336 and 840 in the backward attention, which hands its buffers of dq over in the same way; in the forward
 *   attention the number of the tile, 28 and 68 times in blocks that take a second one. `full`, where those arrive that have written, is followed: no
 *   first fill is reported.
 * - The consumers of the 2-simplicial forward kernel exchange results across one `bar.sync` of their 256 threads, which each comes to from its own
 *   instance of `merge`. Where blocks have one item, so that each byte is written once and read once, the writes of 2 warps of 416 were reported in
 *   one launch and none in three others of the same problem.
 * - The kernel of grouped products hands its stages back in the first way; it is left out without having been tried.
 *
 * The release notes (https://docs.nvidia.com/compute-sanitizer/ReleaseNotes/) mend false reports about mbarriers (2025.4), warpgroups on Hopper
 * (2026.1) and mbarriers that count copied bytes (2026.3). None of these has been tried: from there on
 * racecheck looks at these kernels, too.
 */
const beyondRacecheck = [
  "simplicial_forward_kernel",
  "simplicial_backward.*[0-9]columns_kernel",
  "attention_forward_sm90_kernel",
  "attention_backward_sm90_kernel",
  "grouped_matmul_sm90_kernel",
];

/** What racecheck is to leave out with this compute-sanitizer: its options, and a line that says so. */
export function racecheckFilter(sanitizer) {
  const [, year, release] = /Version (\d+)\.(\d+)/.exec(capture(sanitizer, ["--version"]).stdout) ?? [];
  const capable = !(Number(year) < 2026 || (Number(year) === 2026 && Number(release) < 3));
  if (capable) return { options: [] };
  return {
    options: beyondRacecheck.flatMap((name) => ["--kernel-name-exclude", `regex=${name}`]),
    leftOut: `left out, for compute-sanitizer ${year}.${release} can't follow their barriers: ${beyondRacecheck.join(", ")}`,
  };
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
