/** The C++ tests of the engine in a build folder of their own, for other settings than the addon's. */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { run } from "./process.mjs";
import { root } from "./workspace.mjs";

/** CMake's own lines go to stderr, so that the last line of stdout is the count that the test program prints. */
const stdio = ["ignore", 2, 2];

/** Path of the test program; undefined when it could not be built (messages are on stderr). */
export function buildEngineTests(folder, settings) {
  const source = ["-S", join(root, "native"), "-B", folder];
  const configured = run("cmake", [...source, "-DCMAKE_BUILD_TYPE=Release", "-DLLMEFF_TESTS=ON", ...settings], {
    stdio,
  });
  const parallel = ["--parallel", String(availableParallelism())];
  const built =
    configured === 0 && run("cmake", ["--build", folder, "--target", "engine_tests", ...parallel], { stdio }) === 0;
  return built ? join(folder, "engine_tests") : undefined;
}
