/** An empty project outside the checkout, in which tarballs are installed and run with a PATH that reaches Node and its installers only. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";

const compilers = ["cc", "c++", "gcc", "g++", "clang", "clang++", "cmake", "ninja", "make", "nvcc", "python3"];

function find(tool, path = process.env.PATH ?? "") {
  return path
    .split(delimiter)
    .map((folder) => join(folder, tool))
    .find((candidate) => existsSync(candidate));
}

/** An environment whose PATH holds node, npm and pnpm; throws if a compiler can still be reached through it. */
export function environmentWithoutCompiler(folder) {
  const tools = { node: process.execPath, npm: find("npm"), pnpm: find("pnpm") };
  const absent = Object.keys(tools).filter((tool) => tools[tool] === undefined);
  if (absent.length > 0) throw new Error(`[pack] ${absent.join(", ")} not found on the PATH`);
  const path = join(folder, "bin");
  mkdirSync(path, { recursive: true });
  for (const [tool, target] of Object.entries(tools)) symlinkSync(realpathSync(target), join(path, tool));
  symlinkSync(realpathSync("/bin/sh"), join(path, "sh"));
  const reachable = compilers.filter((tool) => find(tool, path) !== undefined);
  if (reachable.length > 0) throw new Error(`[pack] the reduced PATH still reaches ${reachable.join(", ")}`);
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(?:npm_|pnpm_|LLMEFF_|INIT_CWD$|NODE_OPTIONS$|NODE_PATH$|PATH$|Path$)/.test(name),
  );
  return { ...Object.fromEntries(kept), PATH: path, CC: "/nonexistent", CXX: "/nonexistent", CI: "true" };
}

/** Runs a program in the project; throws with its output when it fails, returns its standard output. */
export function runIn(dir, env, command, args, timeoutMs = 300_000) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: dir,
    env,
    encoding: "utf8",
    timeout: timeoutMs,
  });
  if (error || status !== 0)
    throw new Error(
      `${command} ${args.join(" ")} failed (${error?.message ?? `exit ${status}`})\n${stdout ?? ""}${stderr ?? ""}`,
    );
  return stdout;
}

const fileSpecs = (tarballs) => Object.fromEntries(tarballs.map(({ name, tarball }) => [name, `file:${tarball}`]));

/**
 * Writes the manifest of a project that uses the libraries. Every name is overridden to its tarball, so that also the packages which the
 * libraries ask for come from here and not from a registry; platform packages are optional, as at a user's.
 */
export function writeProject(dir, manager, libraries, platforms) {
  mkdirSync(dir, { recursive: true });
  const manifest = {
    name: "empty-project",
    version: "1.0.0",
    private: true,
    type: "module",
    dependencies: fileSpecs(libraries),
  };
  const overrides = fileSpecs([...libraries, ...platforms]);
  if (manager === "npm") {
    const references = Object.fromEntries(libraries.map(({ name }) => [name, `$${name}`]));
    Object.assign(manifest, { overrides: { ...overrides, ...references } });
  } else {
    const lines = Object.entries(overrides).map(([name, spec]) => `  ${JSON.stringify(name)}: ${JSON.stringify(spec)}`);
    writeFileSync(join(dir, "pnpm-workspace.yaml"), `packages: []\noverrides:\n${lines.join("\n")}\n`);
  }
  writeFileSync(join(dir, "package.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
}
