/** Builds and runs the C++ tests of the engine (native/test) from the objects of the addon's own build. */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { buildDir } from "../native/scripts/cmake-js.mjs";
import { run } from "./lib/process.mjs";

/** CMake's own lines go to stderr, so that the last line of stdout is the count that the test program prints. */
const stdio = ["ignore", 2, 2];
const build = [
  "--build",
  buildDir,
  "--config",
  "Release",
  "--target",
  "engine_tests",
  "--parallel",
  String(availableParallelism()),
];
const built = run("cmake", ["-DLLMEFF_TESTS=ON", buildDir], { stdio }) === 0 && run("cmake", build, { stdio }) === 0;
process.exitCode = built ? run(join(buildDir, "engine_tests"), []) : 1;
