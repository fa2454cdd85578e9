import { existsSync, readdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const ownFolder = join(dirname(dirname(fileURLToPath(import.meta.url))), "golden");

/** Where a golden file is: in `LLMEFF_GOLDEN_DIR` (set by `npm run golden -- DIR`), else in the project's own `golden/`. */
export function goldenPath(name: string): string {
  return join(process.env.LLMEFF_GOLDEN_DIR ?? ownFolder, name);
}

/** A case of models.json. Cases differ in form from op to op; each runner knows its own. */
export interface ModelsCase {
  id: string;
  op: string;
  // biome-ignore lint/suspicious/noExplicitAny: see above
  params: any;
  // biome-ignore lint/suspicious/noExplicitAny: see above
  inputs: any;
  // biome-ignore lint/suspicious/noExplicitAny: see above
  outputs: any;
  tol: { f64: number; f32: number };
}

/**
 * A suite named after the golden file it reads, as `npm run golden` counts it. Without the file the suite has one failing test that says so;
 * `suite` then isn't called, so it may read the file at once.
 */
export function describeGolden(name: string, suite: (path: string) => void): void {
  const path = goldenPath(name);
  describe(name, () => {
    if (existsSync(path)) suite(path);
    else
      it("is in the golden folder", () =>
        expect.fail(`[golden] there is no ${path}. Every golden folder needs the names of ${ownFolder}.`));
  });
}

/**
 * The same for a folder of golden files. A folder that was named in `LLMEFF_GOLDEN_DIR` may lack it, since it may hold JSON files alone: the
 * suite then has one passing test that says so. The project's own folder must have it.
 */
export function describeGoldenFolder(name: string, suite: (path: string) => void): void {
  if (process.env.LLMEFF_GOLDEN_DIR === undefined || existsSync(goldenPath(name))) describeGolden(name, suite);
  else describe(name, () => it("is not in this folder: left out", () => {}));
}

/** Folders below the golden one that hold all of these files, by their paths from it, such as `tokenizers/gpt2-style`. */
export function goldenFolders(...files: readonly string[]): string[] {
  const folders = readdirSync(goldenPath(""), { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  );
  return folders
    .map(({ parentPath, name }) => join(parentPath, name))
    .filter((path) => files.every((file) => existsSync(join(path, file))))
    .map((path) => relative(goldenPath(""), path))
    .sort();
}
