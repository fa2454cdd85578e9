/**
 * Stands in for node-gyp under prebuildify, which calls it as `… rebuild --target=20.20.2 --arch=x64 …`. Only `--arch` means anything to
 * cmake-js (its own `--target` is a CMake target). The result is copied to the folder in which prebuildify works, because prebuildify moves
 * the file it finds there and the checkout's own build has to stay.
 */
import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { addonPath, isUpToDate, runCmakeJs } from "./cmake-js.mjs";

const arch = process.argv.find((argument) => argument.startsWith("--arch="))?.slice("--arch=".length);
const clean = process.env.LLMEFF_PREBUILD_CLEAN === "1";
const status = !clean && isUpToDate() ? 0 : runCmakeJs(clean ? "rebuild" : "build", { arch });
if (status === 0) {
  const output = join(process.cwd(), "build", "Release");
  mkdirSync(output, { recursive: true });
  copyFileSync(addonPath, join(output, "llmeff.node"));
}
process.exitCode = status;
