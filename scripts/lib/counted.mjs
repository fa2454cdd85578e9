/** Counting across programs: every test program ends with the line `N passed, N failed`; this reads, adds and prints such lines. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { stripVTControlCharacters } from "node:util";
import { root } from "./workspace.mjs";

const countLine = /^(\d+) passed, (\d+) failed$/;

export function add(a, b) {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed };
}

export function format({ passed, failed }) {
  return `${passed} passed, ${failed} failed`;
}

/** A failed test as programs print it: `FAIL name`, then its message, indented, cut after some lines, and without the calls of libraries. */
export function failureLines(name, message) {
  const all = stripVTControlCharacters(message).trimEnd().split("\n");
  const lines = all.filter((line) => !/^\s+at .*(?:node_modules|<anonymous>)/.test(line));
  return [`FAIL ${name}`, ...lines.slice(0, 20).map((line) => `     ${line}`)].join("\n");
}

/**
 * Runs a program, shows its output and returns the counts of its last line, and as `failures` what it printed by `failureLines`. A program that
 * ends without such a line, or that fails without a failed test (it crashed after them), counts as one more failure.
 */
export function runCounted(command, args, options = {}) {
  return new Promise((done) => {
    const child = spawn(command, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"], ...options });
    child.stdout.setEncoding("utf8").on("data", (text) => process.stdout.write(text));
    const failures = [];
    let last = "";
    let failing = false;
    const lines = createInterface({ input: child.stdout }).on("line", (line) => {
      failing = line.startsWith("FAIL ") || (failing && line.startsWith("     "));
      if (failing) failures.push(line);
      if (line.trim() !== "") last = line;
    });
    const read = new Promise((ended) => lines.once("close", ended));
    child.once("error", () => done({ passed: 0, failed: 1, failures }));
    child.once("close", async (code) => {
      await read;
      const match = countLine.exec(last);
      const counts = match === null ? { passed: 0, failed: 1 } : { passed: Number(match[1]), failed: Number(match[2]) };
      const crashed = code !== 0 && counts.failed === 0;
      done({ ...counts, failed: crashed ? 1 : counts.failed, failures });
    });
  });
}

/** Named checks that each pass or fail; a thrown error is a failure and its message is shown. */
export class Checks {
  passed = 0;
  failed = 0;

  async check(name, body) {
    try {
      await body();
      this.passed++;
      console.log(`ok   ${name}`);
      return true;
    } catch (error) {
      this.failed++;
      console.log(failureLines(name, String(error?.message ?? error)));
      return false;
    }
  }

  /** Prints the counts as the last line and sets the exit code. */
  finish() {
    console.log(format(this));
    process.exitCode = this.failed > 0 ? 1 : 0;
  }
}
