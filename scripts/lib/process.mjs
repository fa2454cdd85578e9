/** Starting other programs: with a clean npm environment, with captured output, and with signals passed on. */
import { spawn, spawnSync } from "node:child_process";
import { constants } from "node:os";
import { delimiter, resolve } from "node:path";
import { root } from "./workspace.mjs";

/** `npm --prefix DIR start` exports DIR as npm's own prefix; a nested `npm install --global` would then install into the checkout. */
for (const name of ["npm_config_prefix", "npm_config_local_prefix", "npm_config_global_prefix"]) {
  const value = process.env[name];
  if (value !== undefined && resolve(value) === root) delete process.env[name];
}

export function prependPath(folder) {
  const entries = (process.env.PATH ?? "").split(delimiter);
  if (!entries.includes(folder)) process.env.PATH = [folder, ...entries].join(delimiter);
}

/** Runs to the end with the terminal's output and without its input; returns the exit code. */
export function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    ...options,
  });
  return error ? 127 : (status ?? 1);
}

/** Runs to the end; returns `{ status, stdout, stderr }`, with status 127 when the program can't be started. */
export function capture(command, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 256 * 1024 * 1024,
    ...options,
  });
  return { status: error ? 127 : (status ?? 1), stdout: stdout ?? "", stderr: stderr ?? "" };
}

/**
 * Runs the main job and resolves to its exit code (128 + signal number when a signal ended it). Ctrl-C on a terminal reaches the whole
 * process group, so there the child has it already and we only wait; a signal sent to this process alone is passed on, once a second at most.
 */
export function runForwardingSignals(command, args, options = {}) {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { cwd: root, stdio: "inherit", ...options });
    let lastForward = Number.NEGATIVE_INFINITY;
    const forward = (signal) => {
      if (signal === "SIGINT" && process.stdin.isTTY) return;
      if (performance.now() - lastForward < 1000) return;
      lastForward = performance.now();
      child.kill(signal);
    };
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, forward);
    child.once("error", fail);
    child.once("exit", (code, signal) => {
      for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) process.off(name, forward);
      done(code ?? 128 + constants.signals[signal]);
    });
  });
}
