/** Which packages a folder's TypeScript and JavaScript files import, found with the TypeScript compiler's own scanner. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { join } from "node:path";
import ts from "typescript";

const skipped = new Set(["node_modules", "dist", "build", "prebuilds", "runs"]);

export function sourceFiles(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return skipped.has(entry.name) ? [] : sourceFiles(path);
    return /\.(?:ts|mts|mjs|js)$/.test(entry.name) ? [path] : [];
  });
}

function packageOf(specifier) {
  const parts = specifier.split("/");
  return specifier.startsWith("@") ? parts.slice(0, 2).join("/") : parts[0];
}

/** Map from each package imported (not relative, not Node's own) to the full specifiers used. */
export function importedPackages(files) {
  const found = new Map();
  for (const file of files) {
    for (const { fileName } of ts.preProcessFile(readFileSync(file, "utf8"), true, true).importedFiles) {
      if (/^(?:\.|\/|node:|#)/.test(fileName) || builtinModules.includes(fileName)) continue;
      const name = packageOf(fileName);
      found.set(name, (found.get(name) ?? new Set()).add(fileName));
    }
  }
  return found;
}
