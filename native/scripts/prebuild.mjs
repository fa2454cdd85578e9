/**
 * Builds, strips and names the addon with prebuildify (`prebuilds/linux-x64/llmeff.glibc.node`) and puts it into this machine's platform
 * package (`npm/linux-x64/llmeff.node`). `--clean` compiles from nothing, as a release should; without it an up-to-date build is used.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { addonPath, nativeDir } from "./cmake-js.mjs";

const prebuildify = promisify(createRequire(import.meta.url)("prebuildify"));
const platform = `${process.platform}-${process.arch}`;
const packageDir = join(nativeDir, "npm", platform);
if (!existsSync(packageDir)) {
  throw new Error(
    `[prebuild] there is a platform package for ${readdirSync(join(nativeDir, "npm")).join(", ")}, none for ${platform}. Add native/npm/${platform}.`,
  );
}

const prebuilds = join(nativeDir, "prebuilds", platform);
rmSync(prebuilds, { recursive: true, force: true });
const clean = process.argv.includes("--clean");
process.env.LLMEFF_PREBUILD_CLEAN = clean ? "1" : "0";
// A100 and its like, Hopper, Blackwell, and what comes after them.
if (clean) process.env.LLMEFF_CUDA_ARCHS ??= "80;90a;100;120;120-virtual";
const workDir = mkdtempSync(join(tmpdir(), "llmeff-prebuild-"));
try {
  await prebuildify({
    cwd: workDir,
    out: nativeDir,
    name: "llmeff",
    napi: true,
    tagLibc: process.platform === "linux",
    strip: true,
    shell: true,
    nodeGyp: `"${process.execPath}" "${join(nativeDir, "scripts", "cmake.mjs")}"`,
    targets: [{ runtime: "node", target: process.versions.node }],
  });
} finally {
  rmSync(workDir, { recursive: true, force: true });
}

const [binary, ...others] = readdirSync(prebuilds).filter((name) => name.endsWith(".node"));
if (binary === undefined || others.length > 0) {
  throw new Error(
    `[prebuild] expected one binary in ${prebuilds}, found ${[binary, ...others].filter(Boolean).join(", ") || "none"}.`,
  );
}
copyFileSync(join(prebuilds, binary), join(packageDir, "llmeff.node"));
console.log(`${binary} -> npm/${platform}/llmeff.node`);

const cudaLibrary = join(dirname(addonPath), "llmeff-cuda.so");
const cudaPackage = join(nativeDir, "npm", `${platform}-cuda`);
if (existsSync(cudaLibrary) && existsSync(cudaPackage)) {
  execFileSync("strip", ["-o", join(cudaPackage, "llmeff-cuda.so"), cudaLibrary]);
  console.log(`llmeff-cuda.so -> npm/${platform}-cuda/llmeff-cuda.so`);
} else if (existsSync(cudaPackage)) {
  console.log(`no llmeff-cuda.so for npm/${platform}-cuda: there is no nvcc`);
}
