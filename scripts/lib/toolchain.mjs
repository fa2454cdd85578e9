/** Checks for a C++20 compiler, CMake, Ninja or make, and the headers of Eigen; installs them on Debian as root, says what to type elsewhere. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { capture, run } from "./process.mjs";
import { SetupError } from "./setup-error.mjs";

const minimumCmake = [3, 18];

const probe = `#include <bit>
#include <concepts>
#include <span>
template <std::integral T> int width(std::span<const T> values) { return std::bit_width(values.size()); }
`;

/** Compiles a few lines that need the library and the language of C++20. */
function compilerWorks() {
  const folder = mkdtempSync(join(tmpdir(), "llmeff-compiler-"));
  try {
    const source = join(folder, "probe.cc");
    writeFileSync(source, probe);
    const [compiler, ...flags] = (process.env.CXX ?? "c++").split(/\s+/);
    return capture(compiler, [...flags, "-std=c++20", "-fsyntax-only", source]).status === 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function cmakeWorks() {
  const version = /version (\d+)\.(\d+)/.exec(capture("cmake", ["--version"]).stdout);
  if (version === null) return false;
  const [major, minor] = [Number(version[1]), Number(version[2])];
  return major > minimumCmake[0] || (major === minimumCmake[0] && minor >= minimumCmake[1]);
}

function generatorWorks() {
  return ["ninja", "make"].some((tool) => capture(tool, ["--version"]).status === 0);
}

/** Where CMake looks for headers, too. */
const includeFolders = ["/usr/include", "/usr/local/include", "/opt/homebrew/include", "/opt/local/include"];

function eigenIsThere() {
  const given = (process.env.CMAKE_PREFIX_PATH ?? "").split(/[:;]/).filter(Boolean);
  return [...given.map((prefix) => join(prefix, "include")), ...includeFolders].some((folder) =>
    ["", "eigen3"].some((name) => existsSync(join(folder, name, "Eigen", "Core"))),
  );
}

function missingTools() {
  const checks = { compiler: compilerWorks, cmake: cmakeWorks, generator: generatorWorks, eigen: eigenIsThere };
  return Object.keys(checks).filter((tool) => !checks[tool]());
}

/** How each system's package manager is called, in the order in which they are looked for. */
const installers = [
  {
    tool: "apt-get",
    refresh: "apt-get update",
    command: "apt-get install --yes",
    compiler: "g++",
    cmake: "cmake",
    generator: "ninja-build",
    eigen: "libeigen3-dev",
  },
  {
    tool: "dnf",
    command: "dnf install -y",
    compiler: "gcc-c++",
    cmake: "cmake",
    generator: "ninja-build",
    eigen: "eigen3-devel",
  },
  {
    tool: "pacman",
    command: "pacman -S --needed",
    compiler: "gcc",
    cmake: "cmake",
    generator: "ninja",
    eigen: "eigen",
  },
  { tool: "apk", command: "apk add", compiler: "g++", cmake: "cmake", generator: "ninja", eigen: "eigen-dev" },
  {
    tool: "zypper",
    command: "zypper install",
    compiler: "gcc-c++",
    cmake: "cmake",
    generator: "ninja",
    eigen: "eigen3-devel",
  },
];

function isRoot() {
  return process.getuid?.() === 0;
}

function commandFor(missing) {
  if (process.platform === "darwin") {
    const formulae = missing
      .filter((tool) => tool !== "compiler")
      .map((tool) => (tool === "generator" ? "ninja" : tool));
    const commands = missing.includes("compiler") ? ["xcode-select --install"] : [];
    return [...commands, ...(formulae.length > 0 ? [`brew install ${formulae.join(" ")}`] : [])].join(" && ");
  }
  const installer = installers.find(({ tool }) =>
    ["/usr/bin", "/sbin", "/usr/sbin"].some((folder) => existsSync(join(folder, tool))),
  );
  if (installer === undefined) return undefined;
  const packages = missing.map((tool) => installer[tool]).join(" ");
  const commands = [...(installer.refresh ? [installer.refresh] : []), `${installer.command} ${packages}`];
  return commands.map((command) => (isRoot() ? command : `sudo ${command}`)).join(" && ");
}

function installOnDebian(missing) {
  const apt = installers[0];
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const packages = missing.map((tool) => apt[tool]);
  console.log(`installing ${packages.join(", ")} with apt-get`);
  if (run("apt-get", ["update"], { env }) !== 0) return;
  run("apt-get", ["install", "--yes", "--no-install-recommends", ...packages], { env });
}

const names = {
  compiler: "a C++20 compiler",
  cmake: `CMake ≥ ${minimumCmake.join(".")}`,
  generator: "Ninja or make",
  eigen: "the headers of Eigen",
};

export function ensureToolchain() {
  let missing = missingTools();
  if (missing.length > 0 && existsSync("/etc/debian_version") && isRoot()) {
    installOnDebian(missing);
    missing = missingTools();
  }
  if (missing.length === 0) return;
  const what = missing.map((tool) => names[tool]).join(", ");
  const command = commandFor(missing);
  const advice =
    command === undefined
      ? "Install it with your system's package manager"
      : `Type this, then repeat your command:\n\n  ${command.replaceAll("\n", "\n  ")}\n`;
  throw new SetupError(`[setup] the native engine is built from source and this machine lacks: ${what}.\n${advice}`);
}
