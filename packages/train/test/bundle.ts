/** Programs of this folder as single JavaScript files, for tests that need a process to kill. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { bundleProgram } from "../../../test/bundle.js";

/** Bundles `test/<name>.ts` with the workspace's sources. @returns the path of the program in `folder` */
export function bundle(name: string, folder: string): Promise<string> {
  return bundleProgram(new URL(`${name}.ts`, import.meta.url), folder);
}

/** The environment of a bundled program: away from its package, the engine's loader must be told where the local build is. */
export function bundleEnvironment(): NodeJS.ProcessEnv {
  const local = fileURLToPath(new URL("../../../native/build/Release/llmeff.node", import.meta.url));
  return existsSync(local) ? { LLMEFF_NATIVE_PATH: local, ...process.env } : process.env;
}
