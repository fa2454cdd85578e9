/**
 * Holds every package's manifest against what its files import: nothing missing, nothing unused, and imports only from the floors below.
 *
 * The floors, bottom first; a package imports only from floors below its own, and sideways only where said.
 */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Checks } from "./lib/counted.mjs";
import { importedPackages, sourceFiles } from "./lib/imports.mjs";
import { readJson, root, workspacePackages } from "./lib/workspace.mjs";

const floors = [
  ["@llmeff/native"],
  ["@llmeff/tensor"],
  ["@llmeff/models", "@llmeff/data", "@llmeff/optim"],
  ["@llmeff/train", "@llmeff/scaling"],
  ["@llmeff/distill", "@llmeff/federated", "@llmeff/longcontext", "@llmeff/algoperf", "@llmeff/report"],
  ["llmeff"],
];
/** `data` hands out typed arrays and knows nothing of tensors; of the engine these two need the error classes only. */
const onlyThese = {
  "@llmeff/data": ["@llmeff/native/errors"],
  "@llmeff/report": ["@llmeff/native/errors"],
};
/** The one way sideways: the report of an evaluation is a document of `report`, and its files are kept as safe as that package's. */
const sideways = { "@llmeff/longcontext": ["@llmeff/report"] };

const floorOf = (name) => floors.findIndex((floor) => floor.includes(name));
const isTest = (path) => /\.(?:test|test-d)\.ts$/.test(path) || /[\\/]test[\\/]/.test(path);
const rootManifest = readJson(join(root, "package.json"));
const packages = workspacePackages().filter(({ platform }) => !platform);
const checks = new Checks();

function expectNone(problems) {
  if (problems.length > 0) throw new Error(problems.join("\n"));
}

/** Everything beside the library's source in which a development dependency may be named: scripts, configurations, the manifest's scripts. */
function toolingText({ dir, manifest }) {
  const names = readdirSync(dir).filter((name) => /\.(?:ts|mjs|json|txt|ya?ml)$/.test(name) && name !== "package.json");
  const files = [...names.map((name) => join(dir, name)), ...sourceFiles(join(dir, "scripts"))];
  return [JSON.stringify(manifest.scripts ?? {}), ...files.map((file) => readFileSync(file, "utf8"))].join("\n");
}

/** The command of a tool is not always its package's name. */
const commandNames = {
  "@biomejs/biome": "biome check",
  "@changesets/cli": "changeset ",
  "@arethetypeswrong/cli": "attw",
  typescript: "tsc ",
  "@types/node": '"node"',
};

function namedIn(text, dependency) {
  return (
    text.includes(`"${dependency}`) ||
    text.includes(`'${dependency}`) ||
    text.includes(commandNames[dependency] ?? `"${dependency}`)
  );
}

for (const { name, dir, manifest } of packages) {
  const library = sourceFiles(join(dir, basename(dir) === "native" ? "ts" : "src")).filter((path) => !isTest(path));
  const tests = sourceFiles(dir).filter(isTest);
  const imported = importedPackages(library);
  const importedByTests = importedPackages(tests);
  const runtime = { ...manifest.dependencies, ...manifest.peerDependencies, ...manifest.optionalDependencies };
  const development = manifest.devDependencies ?? {};

  await checks.check(`${name}: every import is a dependency`, () => {
    const missing = [...imported.keys()].filter((wanted) => wanted !== name && !(wanted in runtime));
    const missingInTests = [...importedByTests.keys()].filter(
      (wanted) =>
        wanted !== name &&
        !(wanted in runtime) &&
        !(wanted in development) &&
        (wanted.includes("llmeff") || !(wanted in rootManifest.devDependencies)),
    );
    expectNone([
      ...missing.map((wanted) => `${wanted} is imported but not in dependencies`),
      ...missingInTests.map((wanted) => `${wanted} is imported by a test but not in devDependencies`),
    ]);
  });

  await checks.check(`${name}: every dependency is used`, () => {
    const text = toolingText({ dir, manifest });
    const unused = Object.keys(runtime).filter(
      (dependency) => !imported.has(dependency) && !dependency.startsWith("@llmeff/native-"),
    );
    const unusedInDevelopment = Object.keys(development).filter(
      (dependency) => !importedByTests.has(dependency) && !namedIn(text, dependency),
    );
    expectNone([...unused, ...unusedInDevelopment].map((dependency) => `${dependency} is listed but not used`));
  });

  await checks.check(`${name}: imports only from the floors below`, () => {
    const siblings = [...imported].filter(([wanted]) => wanted !== name && floorOf(wanted) >= 0);
    const unknown = floorOf(name) < 0 ? [`${name} has no floor in scripts/check-dependencies.mjs`] : [];
    const tooHigh = siblings
      .filter(([wanted]) => floorOf(wanted) >= floorOf(name) && !sideways[name]?.includes(wanted))
      .map(([wanted]) => `${wanted} is not below ${name}`);
    const allowed = onlyThese[name];
    const beyond = siblings
      .flatMap(([, specifiers]) => [...specifiers])
      .filter((specifier) => allowed !== undefined && !allowed.includes(specifier));
    expectNone([
      ...unknown,
      ...tooHigh,
      ...beyond.map((specifier) => `${name} may import only ${allowed.join(", ")} from the house, not ${specifier}`),
    ]);
  });
}

await checks.check("root: development dependencies are those used", () => {
  const own = importedPackages([...sourceFiles(join(root, "scripts")), ...sourceFiles(join(root, "test"))]);
  const elsewhere = importedPackages(packages.flatMap(({ dir }) => sourceFiles(dir)));
  const text = [toolingText({ dir: root, manifest: rootManifest }), ...packages.map(toolingText)].join("\n");
  const listed = rootManifest.devDependencies;
  expectNone([
    ...[...own.keys()]
      .filter((wanted) => !(wanted in listed))
      .map((wanted) => `${wanted} is imported but not in devDependencies`),
    ...Object.keys(listed)
      .filter((dependency) => !own.has(dependency) && !elsewhere.has(dependency) && !namedIn(text, dependency))
      .map((dependency) => `${dependency} is listed but not used`),
  ]);
});

checks.finish();
