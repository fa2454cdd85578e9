/**
 * Proves that what would be published works at its users': packs every package, checks the tarballs' content and shape, installs them into
 * an empty npm project and an empty pnpm project with no compiler in reach, and trains there.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Checks } from "./lib/counted.mjs";
import { environmentWithoutCompiler, runIn, writeProject } from "./lib/empty-project.mjs";
import { capture } from "./lib/process.mjs";
import { listTarball } from "./lib/tarball.mjs";
import { root, workspacePackages } from "./lib/workspace.mjs";

/** All that a tarball may hold: code, its maps, documents. No data set, whatever its licence, travels with a package. */
const allowedFiles =
  /^(?:dist\/.+\.(?:js|js\.map|d\.ts|d\.ts\.map|html|css)|package\.json|README\.md|CHANGELOG\.md|LICENSE|llmeff\.node|llmeff-cuda\.so)$/;
const sizeLimit = 2_000_000;
const binaries = ["llmeff.node", "llmeff-cuda.so"];
/** Whether this build has the CUDA device: where nvcc is. */
const hasCuda = existsSync(join(root, "native", "build", "Release", "llmeff-cuda.so"));

const thisPlatform = `@llmeff/native-${process.platform}-${process.arch}`;
const folder = mkdtempSync(join(tmpdir(), "llmeff-pack-"));
const checks = new Checks();

function succeed(command, args, options) {
  const { status, stdout, stderr } = capture(command, args, options);
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed with ${status}\n${stdout}${stderr}`);
  return stdout;
}

function tool(packageName, ...path) {
  return join(root, "node_modules", packageName, ...path);
}

function pack({ name, dir }) {
  const target = join(folder, "tarballs");
  mkdirSync(target, { recursive: true });
  const [{ filename } = {}] = [
    JSON.parse(succeed("pnpm", ["pack", "--json", "--pack-destination", target], { cwd: dir })),
  ].flat();
  if (filename === undefined) throw new Error(`pnpm pack named no file for ${name}`);
  return filename;
}

function checkContent({ name, tarball, platform }) {
  const files = listTarball(tarball);
  const problems = files.flatMap(({ path, size }) => [
    ...(allowedFiles.test(path) ? [] : [`${path} does not belong into a package`]),
    ...(size > sizeLimit && !binaries.includes(path) ? [`${path} has ${size} bytes; the limit is ${sizeLimit}`] : []),
  ]);
  const required = [
    "package.json",
    "README.md",
    "LICENSE",
    ...(platform ? [] : ["dist/"]),
    // What a thread runs is named by no export.
    ...(name === "llmeff" ? ["dist/tokenizer-worker.js"] : []),
    ...(name === thisPlatform ? ["llmeff.node"] : []),
    ...(name === `${thisPlatform}-cuda` && hasCuda ? ["llmeff-cuda.so"] : []),
  ];
  const missing = required
    .filter((wanted) => !files.some(({ path }) => path.startsWith(wanted)))
    .map((wanted) => `${wanted} is missing`);
  if (problems.length + missing.length > 0) throw new Error([...problems, ...missing].join("\n"));
}

async function packAll() {
  const packed = [];
  for (const entry of workspacePackages()) {
    let tarball;
    await checks.check(`${entry.name}: packs`, () => {
      tarball = pack(entry);
      checkContent({ ...entry, tarball });
    });
    if (tarball !== undefined) packed.push({ ...entry, tarball });
  }
  return packed;
}

async function checkShape({ name, tarball, platform, manifest }) {
  await checks.check(
    `${name}: publint --strict`,
    () => void succeed(process.execPath, [tool("publint", "src", "cli.js"), "run", tarball, "--strict"]),
  );
  if (platform || manifest.exports === undefined) return;
  await checks.check(`${name}: attw --profile esm-only`, () => {
    succeed(process.execPath, [tool("@arethetypeswrong/cli", "dist", "index.js"), tarball, "--profile", "esm-only"]);
  });
}

const installCommands = {
  npm: ["install", "--no-audit", "--no-fund", "--prefer-offline"],
  pnpm: ["install", "--prefer-offline", "--no-frozen-lockfile"],
};

async function tryInstallation(manager, packed, env) {
  const dir = join(folder, `${manager}-project`);
  const libraries = packed.filter(({ platform }) => !platform);
  const installed = await checks.check(`${manager}: the tarballs install into an empty project`, () => {
    writeProject(
      dir,
      manager,
      libraries,
      packed.filter(({ platform }) => platform),
    );
    runIn(dir, env, manager, installCommands[manager]);
  });
  if (!installed) return;
  for (const script of ["import-all.mjs", "train.mjs"])
    copyFileSync(join(root, "scripts", "pack-test", script), join(dir, script));
  const importable = libraries.filter(({ manifest }) => manifest.exports !== undefined).map(({ name }) => name);
  await checks.check(
    `${manager}: every package can be imported`,
    () => void runIn(dir, env, "node", ["import-all.mjs", ...importable]),
  );
  for (const { name, manifest } of libraries.filter(({ manifest }) => manifest.bin !== undefined)) {
    const [[command, path]] = Object.entries(manifest.bin);
    await checks.check(`${manager}: \`${command} info\` runs`, () => {
      runIn(dir, env, "node", [join("node_modules", name, path), "info"]);
    });
  }
  await checks.check(`${manager}: 100 SONew steps on Float32Arrays lower the loss`, () => {
    console.log(runIn(dir, env, "node", ["train.mjs"]).trim());
  });
}

try {
  const filled = await checks.check(`${thisPlatform}: prebuildify fills the platform package`, () => {
    succeed(process.execPath, [join(root, "native", "scripts", "prebuild.mjs")], { cwd: join(root, "native") });
  });
  const packed = filled ? await packAll() : [];
  // The binaries of other systems are not here, so their packages are complete only at release time.
  for (const entry of packed.filter(({ name, platform }) => !platform || name === thisPlatform))
    await checkShape(entry);
  if (packed.length > 0) {
    const env = environmentWithoutCompiler(folder);
    for (const manager of ["npm", "pnpm"]) await tryInstallation(manager, packed, env);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
checks.finish();
