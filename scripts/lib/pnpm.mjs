/** Finds or installs exactly the pnpm that package.json names, and installs the workspace's dependencies with it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { capture, prependPath, run } from "./process.mjs";
import { SetupError } from "./setup-error.mjs";
import { digestOf, hasStamp, writeStamp } from "./stamp.mjs";
import { cacheDir, readJson, root, workspacePackages } from "./workspace.mjs";

const wanted = readJson(join(root, "package.json")).packageManager.replace("pnpm@", "");
const localPrefix = join(cacheDir, "pnpm");

/** npm as it was started, so that a second npm on the PATH can't get in between. */
function npm(args, options) {
  const script = process.env.npm_execpath;
  if (script?.endsWith("npm-cli.js")) return run(process.execPath, [script, ...args], options);
  return run("npm", args, options);
}

function installedVersion() {
  const { status, stdout } = capture("pnpm", ["--version"]);
  return status === 0 ? stdout.trim() : undefined;
}

/**
 * Puts the wanted pnpm on the PATH of this process and its children (turbo looks for it there). A machine without pnpm gets it globally;
 * where that is not permitted, or another version is in use, it goes to a private folder below `node_modules/.cache`.
 */
export function ensurePnpm() {
  if (existsSync(localPrefix)) prependPath(join(localPrefix, "node_modules", ".bin"));
  const present = installedVersion();
  if (present === wanted) return;
  if (present === undefined) {
    console.log(`installing pnpm ${wanted}`);
    const status = npm(["install", "--global", "--no-fund", "--no-audit", `pnpm@${wanted}`]);
    if (status === 0 && installedVersion() === wanted) return;
  }
  console.log(`installing pnpm ${wanted} into node_modules/.cache`);
  npm([
    "install",
    "--prefix",
    localPrefix,
    "--no-save",
    "--no-package-lock",
    "--no-fund",
    "--no-audit",
    `pnpm@${wanted}`,
  ]);
  prependPath(join(localPrefix, "node_modules", ".bin"));
  if (installedVersion() === wanted) return;
  throw new SetupError(
    `[setup] could not install pnpm ${wanted} with npm (messages above). Install it yourself: npm install --global pnpm@${wanted}`,
  );
}

/** `pnpm install --frozen-lockfile`, skipped while lockfile and manifests are those of the last successful run. */
export function installDependencies() {
  const manifests = workspacePackages().map(({ dir }) => join(dir, "package.json"));
  const settings = ["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc"].map((name) => join(root, name));
  const digest = digestOf([...settings, ...manifests]);
  if (existsSync(join(root, "node_modules", ".modules.yaml")) && hasStamp("install", digest)) return;
  // CI=true: pnpm must never wait for an answer on a terminal.
  const status = run("pnpm", ["install", "--frozen-lockfile"], { env: { ...process.env, CI: "true" } });
  if (status !== 0) {
    throw new SetupError(
      "[setup] pnpm install failed (messages above). If a package.json was changed on purpose, run `pnpm install` and commit pnpm-lock.yaml.",
    );
  }
  writeStamp("install", digest);
}
