/** Programs of the tests as single JavaScript files, for tests that need a process to kill. */
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "tsup";

/** Bundles a program with the workspace's sources. @returns its path in `folder` */
export async function bundleProgram(program: URL, folder: string): Promise<string> {
  await build({
    entry: [fileURLToPath(program)],
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
  return join(folder, basename(program.pathname).replace(/\.ts$/, ".mjs"));
}
