/**
 * `npm start` and `npm test` on a machine that has nothing but Node.js and npm: installs pnpm and the dependencies, checks the toolchain,
 * builds the native engine, then does what was asked. Every step is skipped while its inputs are unchanged.
 *
 *   node scripts/bootstrap.mjs install            pnpm and dependencies only
 *   node scripts/bootstrap.mjs run SCRIPT         … and then a script of package.json
 *   node scripts/bootstrap.mjs setup              … and the native engine
 *   node scripts/bootstrap.mjs start [ARGS]       … and the packages; runs the main study, or `llmeff ARGS` if ARGS begins with a command
 *   node scripts/bootstrap.mjs test               … runs every test
 *   node scripts/bootstrap.mjs golden [DIR]       … runs the golden suites against the files in DIR
 *   node scripts/bootstrap.mjs gpu-check [ARGS]   … and the packages; checks the CUDA engine on this machine's GPU
 *   node scripts/bootstrap.mjs bench [ARGS]       … and the packages; runs the benchmarks
 *   node scripts/bootstrap.mjs evidence [ARGS]    … and the packages; runs a study of optimizers
 *
 * Only Node's own modules may be imported here and in `lib/`.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { isUpToDate, runCmakeJs } from "../native/scripts/cmake-js.mjs";
import { ensurePnpm, installDependencies } from "./lib/pnpm.mjs";
import { capture, run, runForwardingSignals } from "./lib/process.mjs";
import { SetupError } from "./lib/setup-error.mjs";
import { ensureToolchain } from "./lib/toolchain.mjs";
import { readJson, root } from "./lib/workspace.mjs";

const mainJob = ["study", join("examples", "token-efficiency.json")];

function checkNode() {
  const required = readJson(join(root, "package.json")).engines.node.replace(">=", "");
  const [needMajor, needMinor] = required.split(".").map(Number);
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > needMajor || (major === needMajor && minor >= needMinor)) return;
  throw new SetupError(
    `[setup] llmeff needs Node.js ≥ ${required}; this is ${process.versions.node}. Install a newer one from https://nodejs.org.`,
  );
}

function checkSystem() {
  if (process.platform === "win32") {
    throw new SetupError(
      "[setup] the native engine doesn't build on Windows yet. Use Linux in WSL: https://learn.microsoft.com/windows/wsl.",
    );
  }
}

function install() {
  checkNode();
  checkSystem();
  ensurePnpm();
  installDependencies();
}

function setup() {
  install();
  if (isUpToDate()) return;
  ensureToolchain();
  console.log("building the native engine");
  if (runCmakeJs("build") !== 0) throw new SetupError("[setup] the native engine did not compile (messages above).");
}

/** Bundles the packages; turbo replays what it has built before. Its report is shown only when something failed. */
function buildPackages(...filter) {
  const turbo = join(root, "node_modules", "turbo", "bin", "turbo");
  const env = { ...process.env, TURBO_TELEMETRY_DISABLED: "1" };
  console.log("building the packages");
  const args = [turbo, "run", "build", "--output-logs=errors-only", ...filter];
  const { status, stdout, stderr } = capture(process.execPath, args, { env });
  if (status === 0) return;
  console.error(`${stdout}${stderr}`);
  throw new SetupError("[setup] the packages did not build (messages above).");
}

/** Arguments that begin with an option belong to the main study; anything else is a command of its own, run where the user stands. */
function start(args) {
  setup();
  buildPackages("--filter=llmeff");
  const cli = join(root, "packages", "cli", "dist", "cli.js");
  const ownCommand = args.length > 0 && !args[0].startsWith("-");
  const cwd = ownCommand ? (process.env.INIT_CWD ?? process.cwd()) : root;
  return runForwardingSignals(process.execPath, [cli, ...(ownCommand ? args : [...mainJob, ...args])], { cwd });
}

function test() {
  setup();
  buildPackages();
  return runForwardingSignals(process.execPath, [join(root, "scripts", "test.mjs")]);
}

function golden([folder]) {
  setup();
  const dir = folder === undefined ? join(root, "golden") : resolve(process.env.INIT_CWD ?? process.cwd(), folder);
  if (!existsSync(dir))
    throw new SetupError(
      `[golden] there is no folder ${dir}. Give one that holds files like those in ${join(root, "golden")}.`,
    );
  return runForwardingSignals(process.execPath, [join(root, "scripts", "golden.mjs"), dir]);
}

function bench(args) {
  return runInBench("run.mjs", args);
}

function evidence(args) {
  return runInBench("evidence.mjs", args);
}

function runInBench(program, args) {
  setup();
  buildPackages(...["data", "models", "optim", "report"].map((name) => `--filter=@llmeff/${name}`));
  return runForwardingSignals(process.execPath, [join(root, "bench", program), ...args]);
}

function gpuCheck(args) {
  setup();
  buildPackages("--filter=@llmeff/models", "--filter=@llmeff/optim");
  return runForwardingSignals(process.execPath, [join(root, "scripts", "gpu-check.mjs"), ...args]);
}

function runScript(args) {
  install();
  return run("pnpm", ["run", ...args]);
}

const commands = { install, run: runScript, setup, start, test, golden, "gpu-check": gpuCheck, bench, evidence };

try {
  const [name, ...args] = process.argv.slice(2);
  const command = Object.hasOwn(commands, name ?? "") ? commands[name] : undefined;
  if (command === undefined)
    throw new SetupError(`[setup] expected one of ${Object.keys(commands).join(", ")}; received ${name ?? "nothing"}.`);
  process.exitCode = (await command(args)) ?? 0;
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
