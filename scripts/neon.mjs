/**
 * The engine on another architecture: compiles it for aarch64 with a cross compiler and runs its C++ tests, NEON kernels included, under QEMU's
 * user-mode emulation. Takes some minutes, most of them emulated.
 *
 *   npm run test:neon                 all tests
 *   npm run test:neon -- attention    those whose name contains this
 */
import { join } from "node:path";
import { buildEngineTests } from "./lib/engine-build.mjs";
import { capture, run } from "./lib/process.mjs";
import { cacheDir } from "./lib/workspace.mjs";

const tools = { "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user" };
const absent = Object.keys(tools).filter((tool) => capture(tool, ["--version"]).status !== 0);
if (absent.length > 0) {
  const packages = absent.map((tool) => tools[tool]).join(" ");
  console.error(`[neon] ${absent.join(" and ")} not found. On Debian and Ubuntu: apt-get install ${packages}`);
  console.log("0 passed, 1 failed");
  process.exit(1);
}
const program = buildEngineTests(join(cacheDir, "neon"), [
  "-DCMAKE_SYSTEM_NAME=Linux",
  "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
  "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc",
  "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
]);
// Tests that start this program again name the emulator, which finds the C++ library through its own variable.
const emulator = "qemu-aarch64";
const env = { ...process.env, QEMU_LD_PREFIX: "/usr/aarch64-linux-gnu", LLMEFF_TEST_EMULATOR: emulator };
process.exitCode = program === undefined ? 1 : run(emulator, [program, ...process.argv.slice(2, 3)], { env });
