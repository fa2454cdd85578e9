import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Binding } from "./binding.js";
import { errorFromNative, NativeLoadError } from "./errors.js";

const platformPackage = `@llmeff/native-${process.platform}-${process.arch}`;
const cudaLibrary = "llmeff-cuda.so";

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
    platformPackage,
  ];
}

function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "MODULE_NOT_FOUND") return "not found";
  return `${code ?? "error"}: ${message.split("\n")[0]}`;
}

/**
 * Where the CUDA library may be, in order: what the user names and nothing else, the file beside the addon, the platform's package for CUDA.
 */
function cudaLibraries(require: NodeJS.Require, addon: string): string[] {
  const named = process.env.LLMEFF_CUDA_PATH;
  if (named) return [resolve(named)];
  const beside = join(dirname(require.resolve(addon)), cudaLibrary);
  try {
    return [beside, require.resolve(`${platformPackage}-cuda/${cudaLibrary}`)];
  } catch {
    return [beside]; // the package isn't installed
  }
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
      binding.setCudaLibraries(cudaLibraries(require, candidate));
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
      "or build from source (needs cmake, a C++20 compiler and the headers of Eigen): npm run build:native in a checkout of llmeff.",
  );
}
