/** Runs vitest and reads its JSON report, so that results are counted and not guessed from the screen. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readJson, root } from "./workspace.mjs";

/**
 * @returns `files`: one `{ path, suites, skipped }` a test file, where `suites` maps the outermost `describe` to `{ passed, failed }` and
 * `skipped` names the tests that this system can't run; a file that could not be loaded has the one suite `(file)` with one failure. `crashed` tells that vitest failed beyond what its report says.
 */
export async function runVitest(args, env = {}) {
  const folder = mkdtempSync(join(tmpdir(), "llmeff-vitest-"));
  const reportPath = join(folder, "report.json");
  try {
    const cli = join(root, "node_modules", "vitest", "vitest.mjs");
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportPath}`];
    const status = await exitCode([cli, "run", ...args, ...reporters], env);
    const files = existsSync(reportPath) ? readJson(reportPath).testResults.map(summarise) : [];
    const failures = files.some(({ suites }) => [...suites.values()].some(({ failed }) => failed > 0));
    return { files, crashed: files.length === 0 || (status !== 0 && !failures) };
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

function summarise({ name, status, assertionResults }) {
  const suites = new Map();
  const count = (suite, key) => {
    const counts = suites.get(suite) ?? { passed: 0, failed: 0 };
    counts[key]++;
    suites.set(suite, counts);
  };
  for (const test of assertionResults) {
    if (test.status === "passed" || test.status === "failed") count(test.ancestorTitles[0] ?? "(file)", test.status);
  }
  const anyFailed = [...suites.values()].some(({ failed }) => failed > 0);
  if (status === "failed" && !anyFailed) count("(file)", "failed");
  const skipped = assertionResults
    .filter((test) => !["passed", "failed"].includes(test.status))
    .map((test) => test.fullName);
  return { path: name, suites, skipped };
}
