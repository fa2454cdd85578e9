/** Runs vitest and reads its JSON report, so that results are counted and not guessed from the screen. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { failureLines } from "./counted.mjs";
import { readJson, root } from "./workspace.mjs";

/**
 * @returns `files`: one `{ path, suites, skipped }` a test file, where `suites` maps the outermost `describe` to `{ passed, failed }` and
 * `skipped` names the tests that this system can't run; a file that could not be loaded has the one suite `(file)` with one failure.
 * `crashed` tells that vitest failed beyond what its report says. Failed tests are printed once more after all output.
 */
export async function runVitest(args, env = {}) {
  const folder = mkdtempSync(join(tmpdir(), "llmeff-vitest-"));
  const reportPath = join(folder, "report.json");
  try {
    const cli = join(root, "node_modules", "vitest", "vitest.mjs");
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportPath}`];
    const status = await exitCode([cli, "run", ...args, ...reporters], env);
    const files = existsSync(reportPath) ? readJson(reportPath).testResults.map(summarise) : [];
    const anyFailed = files.some(({ suites }) => [...suites.values()].some(({ failed }) => failed > 0));
    for (const { path, failures } of files) {
      for (const { name, message } of failures) console.log(failureLines(`${relative(root, path)}: ${name}`, message));
    }
    return { files, crashed: files.length === 0 || (status !== 0 && !anyFailed) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function exitCode(args, env) {
  return new Promise((done) => {
    const child = spawn(process.execPath, args, {
      cwd: root,
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...process.env, ...env },
    });
    child.once("error", () => done(127));
    child.once("close", (code) => done(code ?? 1));
  });
}

function summarise({ name, status, message, assertionResults }) {
  const suites = new Map();
  const count = (suite, key) => {
    const counts = suites.get(suite) ?? { passed: 0, failed: 0 };
    counts[key]++;
    suites.set(suite, counts);
  };
  for (const test of assertionResults) {
    if (test.status === "passed" || test.status === "failed") count(test.ancestorTitles[0] ?? "(file)", test.status);
  }
  const skipped = assertionResults
    .filter((test) => !["passed", "failed"].includes(test.status))
    .map((test) => test.fullName);
  const failures = assertionResults
    .filter((test) => test.status === "failed")
    .map((test) => ({ name: test.fullName, message: test.failureMessages.join("\n") }));
  if (status === "failed" && failures.length === 0) {
    count("(file)", "failed");
    failures.push({ name: "(file)", message });
  }
  return { path: name, suites, skipped, failures };
}
