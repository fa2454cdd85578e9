/** Remembers which inputs a finished step had, so that it is skipped while they stay the same. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { cacheDir } from "./workspace.mjs";

export function digestOf(files) {
  const hash = createHash("sha256");
  for (const file of files) {
    hash.update(`${file}\0`);
    if (existsSync(file)) hash.update(readFileSync(file));
    hash.update("\0");
  }
  return hash.digest("hex");
}

export function hasStamp(name, digest) {
  const path = join(cacheDir, `${name}.stamp`);
  return existsSync(path) && readFileSync(path, "utf8") === digest;
}

export function writeStamp(name, digest) {
  const path = join(cacheDir, `${name}.stamp`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, digest);
}
