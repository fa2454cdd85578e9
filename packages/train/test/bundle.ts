/** Programs of this folder as single JavaScript files, for tests that need a process to kill. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "tsup";

/** Bundles `test/<name>.ts` with the workspace's sources. @returns the path of the program in `folder` */
export async function bundle(name: string, folder: string): Promise<string> {
  await build({
    entry: [fileURLToPath(new URL(`${name}.ts`, import.meta.url))],
    outDir: folder,
    format: ["esm"],
    outExtension: () => ({ js: ".mjs" }),
    target: "node20",
    noExternal: [/.*/],
    config: false,
    silent: true,
    esbuildOptions(options) {
      options.conditions = ["@llmeff/source"];
    },
  });
  return join(folder, `${name}.mjs`);
}

/** The environment of a bundled program: away from its package, the engine's loader must be told where the local build is. */
export function bundleEnvironment(): NodeJS.ProcessEnv {
  const local = fileURLToPath(new URL("../../../native/build/Release/llmeff.node", import.meta.url));
  return existsSync(local) ? { LLMEFF_NATIVE_PATH: local, ...process.env } : process.env;
}
