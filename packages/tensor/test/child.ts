import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "tsup";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..", "..");

/** The addon that the tests of this process use, for processes and workers that run bundles from another folder. */
export const addonPath = process.env.LLMEFF_NATIVE_PATH ?? join(root, "native", "build", "Release", "llmeff.node");

/** One of the programs beside this file, bundled with the packages' source into a file that plain Node runs. */
export async function bundle(program: string): Promise<string> {
  const outDir = mkdtempSync(join(tmpdir(), "llmeff-child-"));
  await build({
    config: false,
    entry: { program: join(here, program) },
    outDir,
    format: ["esm"],
    target: "node20",
    platform: "node",
    outExtension: () => ({ js: ".mjs" }),
    noExternal: [/^@llmeff\//],
    tsconfig: join(here, "..", "tsconfig.json"),
    esbuildOptions: (options) => {
      options.conditions = ["@llmeff/source"];
    },
    silent: true,
  });
  const path = join(outDir, "program.mjs");
  if (!existsSync(path)) throw new Error(`[test] ${program} was not bundled to ${path}.`);
  return path;
}

/** Removes what `bundle` made. */
export function discard(program: string): void {
  if (program !== "") rmSync(dirname(program), { recursive: true, force: true });
}

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs Node on a file to its end. */
export function runNode(
  path: string,
  args: readonly string[] = [],
  environment: Record<string, string> = {},
  flags: readonly string[] = [],
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...flags, path, ...args], {
      env: { ...process.env, LLMEFF_NATIVE_PATH: addonPath, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}
