import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Binding } from "./binding.js";
import { errorFromNative, NativeLoadError } from "./errors.js";

/** The file that the user names, relative to the working directory. */
function namedPath(): string | undefined {
  const named = process.env.LLMEFF_NATIVE_PATH;
  return named ? resolve(named) : undefined;
}

/** Where the addon may be, in order: what the user names, a build in a source checkout, the platform's package. */
function candidates(): string[] {
  const packageRoot = join(dirname(fileURLToPath(import.meta.url)), "..");
  const named = namedPath();
  return [
    ...(named !== undefined ? [named] : []),
    join(packageRoot, "build", "Release", "llmeff.node"),
    `@llmeff/native-${process.platform}-${process.arch}`,
  ];
}

function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "MODULE_NOT_FOUND") return "not found";
  return `${code ?? "error"}: ${message.split("\n")[0]}`;
}

let loaded: Binding | undefined;

/**
 * The native engine, loaded at the first call.
 *
 * @throws {NativeLoadError} with every place that was tried and how to mend it
 * @throws {OptionError} if `LLMEFF_CPU_ISA` names an instruction set that is not to be had
 */
export function engine(): Binding {
  if (loaded) return loaded;
  const require = createRequire(import.meta.url);
  const failures: string[] = [];
  for (const candidate of candidates()) {
    try {
      const binding = require(candidate) as Binding;
      binding.setErrorFactory(errorFromNative);
      binding.info();
      loaded = binding;
      return binding;
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ERR_OPTION") throw error;
      failures.push(`${candidate} (${reason(error)})`);
      if (candidate === namedPath()) break; // what the user names is not silently replaced
    }
  }
  throw new NativeLoadError(
    `[@llmeff/native] no usable binary for ${process.platform}-${process.arch}. Tried: ${failures.join(", ")}.\n` +
      "  To fix: install with optional dependencies (pnpm add @llmeff/native --force, or npm install --include=optional), " +
      "or build from source (needs cmake and a C++20 compiler): npm run build:native in a checkout of llmeff.",
  );
}
