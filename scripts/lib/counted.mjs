/** Counting across programs: every test program ends with the line `N passed, N failed`; this reads, adds and prints such lines. */
import { spawn } from "node:child_process";
import { root } from "./workspace.mjs";

const countLine = /^(\d+) passed, (\d+) failed$/;

export function add(a, b) {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed };
}

export function format({ passed, failed }) {
  return `${passed} passed, ${failed} failed`;
}

/**
 * Runs a program, shows its output and returns the counts of its last line. A program that ends without such a line, or that fails
 * without a failed test (it crashed after them), counts as one more failure.
 */
export function runCounted(command, args, options = {}) {
  return new Promise((done) => {
    const child = spawn(command, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"], ...options });
    let output = "";
    child.stdout.setEncoding("utf8");
    child.stdout.on("data", (text) => {
      process.stdout.write(text);
      output = (output + text).slice(-1000);
    });
    child.once("error", () => done({ passed: 0, failed: 1 }));
    child.once("close", (code) => {
      const match = countLine.exec(output.trimEnd().split("\n").at(-1) ?? "");
      const counts = match === null ? { passed: 0, failed: 1 } : { passed: Number(match[1]), failed: Number(match[2]) };
      const crashed = code !== 0 && counts.failed === 0;
      done(crashed ? { ...counts, failed: 1 } : counts);
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
      console.log(`FAIL ${name}\n${String(error?.message ?? error).replace(/^/gm, "     ")}`);
      return false;
    }
  }

  /** Prints the counts as the last line and sets the exit code. */
  finish() {
    console.log(format(this));
    process.exitCode = this.failed > 0 ? 1 : 0;
  }
}
