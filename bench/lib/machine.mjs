/** What a result must say about where it was measured. */
import { execFileSync } from "node:child_process";
import { availableParallelism, cpus, loadavg, totalmem } from "node:os";
import { root } from "../../scripts/lib/workspace.mjs";

function git(...args) {
  try {
    return execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return "";
  }
}

/** `COMMIT`, or `COMMIT+changes` when the checkout differs from it; `unknown` outside of a git checkout. */
function commit() {
  const hash = git("rev-parse", "--short=12", "HEAD");
  if (hash === "") return "unknown";
  return git("status", "--porcelain", "--untracked-files=no") === "" ? hash : `${hash}+changes`;
}

export const cores = availableParallelism();

/** Threads to measure with: one, and all that the machine has. */
export const threadCounts = [...new Set([1, cores])];

export function describeMachine() {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    platform: `${process.platform}-${process.arch}`,
    node: process.versions.node,
    commit: commit(),
    date: new Date().toISOString(),
    /** Other programs' work when the run began: above about 0.2 the figures are not to be trusted. */
    load: Number(loadavg()[0].toFixed(2)),
  };
}
