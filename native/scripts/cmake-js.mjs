/** Runs cmake-js on the engine and says whether the present build is up to date. Pure Node: used before anything is installed, too. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const nativeDir = dirname(dirname(fileURLToPath(import.meta.url)));
export const buildDir = join(nativeDir, "build");
export const addonPath = join(buildDir, "Release", "llmeff.node");
const stampPath = join(buildDir, "llmeff-sources.sha256");

/** Environment variables that change what the compiler produces. */
const buildVariables = ["CC", "CXX", "CXXFLAGS", "LDFLAGS", "LLMEFF_ISAS", "CUDACXX", "LLMEFF_CUDA_ARCHS"];

function filesBelow(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

/** Digest of everything the addon is made from: sources, build description, compiler settings, platform. */
function sourceDigest() {
  const hash = createHash("sha256");
  const files = [
    join(nativeDir, "CMakeLists.txt"),
    join(nativeDir, "package.json"),
    ...filesBelow(join(nativeDir, "src")).sort(),
  ];
  for (const file of files)
    hash
      .update(`${relative(nativeDir, file)}\0`)
      .update(readFileSync(file))
      .update("\0");
  for (const name of buildVariables) hash.update(`${name}=${process.env[name] ?? ""}\0`);
  return hash.update(`${nativeDir}\0${process.platform}-${process.arch}`).digest("hex");
}

export function isUpToDate() {
  return existsSync(addonPath) && existsSync(stampPath) && readFileSync(stampPath, "utf8") === sourceDigest();
}

/** A build folder that was configured for another checkout, or without cmake-js, cannot be continued. */
function dropForeignBuild() {
  const cache = join(buildDir, "CMakeCache.txt");
  if (!existsSync(cache)) return;
  const text = readFileSync(cache, "utf8");
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(text)?.[1];
  const ours = home !== undefined && relative(home, nativeDir) === "" && /^CMAKE_JS_VERSION:/m.test(text);
  if (!ours) rmSync(buildDir, { recursive: true, force: true });
}

/**
 * Runs `cmake-js COMMAND` (`build` or `rebuild`) and returns its exit code. cmake-js takes Ninja where it is installed and make elsewhere, and
 * finds the Node-API headers in its own dependency, so nothing is downloaded.
 */
export function runCmakeJs(command, { arch = process.arch } = {}) {
  if (command === "rebuild") rmSync(buildDir, { recursive: true, force: true });
  else dropForeignBuild();
  const digest = sourceDigest();
  rmSync(stampPath, { force: true });
  const manifest = createRequire(join(nativeDir, "package.json")).resolve("cmake-js/package.json");
  const args = ["build", "--directory", nativeDir, "--arch", arch, "--config", "Release", "--target", "llmeff"];
  const parallel = ["--parallel", String(os.availableParallelism())];
  const { status } = spawnSync(process.execPath, [join(dirname(manifest), "bin", "cmake-js"), ...args, ...parallel], {
    cwd: nativeDir,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status === 0) {
    mkdirSync(buildDir, { recursive: true });
    writeFileSync(stampPath, digest);
  }
  return status ?? 1;
}
