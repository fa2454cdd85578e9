/** Where things are: the checkout, its packages, and the folder for what may be deleted at any time. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const cacheDir = join(root, "node_modules", ".cache", "llmeff");

export function readJson(path) {
  return JSON.parse(readFileSync(path, "utf8"));
}

function packagesIn(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .sort()
    .map((name) => join(folder, name))
    .filter((dir) => existsSync(join(dir, "package.json")));
}

/** Every workspace package: `{ name, dir, manifest, platform }`; `platform` marks the binary packages below `native/npm`. */
export function workspacePackages() {
  const describe = (dir, platform) => {
    const manifest = readJson(join(dir, "package.json"));
    return { name: manifest.name, dir, manifest, platform };
  };
  return [
    describe(join(root, "native"), false),
    ...packagesIn(join(root, "native", "npm")).map((dir) => describe(dir, true)),
    ...packagesIn(join(root, "packages")).map((dir) => describe(dir, false)),
  ];
}
