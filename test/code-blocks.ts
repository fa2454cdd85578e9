import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

export interface CodeBlock {
  /** The Markdown file, relative to the root of the checkout. */
  file: string;
  /** The line of the opening fence, counted from 1. */
  line: number;
  language: string;
  text: string;
}

function directories(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== "node_modules")
    .map((entry) => join(folder, entry.name));
}

/** The documents whose code is tested: the READMEs of root and packages, the contribution guide, and the guides in `docs/`. */
export function documents(): string[] {
  const guides = existsSync(join(root, "docs"))
    ? readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"))
    : [];
  return [
    ...[
      root,
      join(root, "native"),
      ...directories(join(root, "native", "npm")),
      ...directories(join(root, "packages")),
      ...["bench", "datasets", "golden"].map((name) => join(root, name)),
    ].map((dir) => join(dir, "README.md")),
    join(root, "CONTRIBUTING.md"),
    join(root, "FEATURES.md"),
    ...guides.map((name) => join(root, "docs", name)),
  ].filter((path) => existsSync(path));
}

/** The fenced blocks of a Markdown file; a fence may be indented, as in a list. */
export function codeBlocks(path: string): CodeBlock[] {
  const blocks: CodeBlock[] = [];
  let open: { fence: string; indent: number; line: number; language: string; lines: string[] } | undefined;
  for (const [index, line] of readFileSync(path, "utf8").split(/\r?\n/).entries()) {
    const fence = /^(\s*)(`{3,})\s*([\w-]*)/.exec(line);
    if (open === undefined && fence !== null) {
      open = { fence: fence[2]!, indent: fence[1]!.length, line: index + 1, language: fence[3]!, lines: [] };
    } else if (open !== undefined && line.trim() === open.fence) {
      blocks.push({
        file: relative(root, path),
        line: open.line,
        language: open.language,
        text: open.lines.join("\n"),
      });
      open = undefined;
    } else {
      open?.lines.push(line.slice(Math.min(open.indent, line.length - line.trimStart().length)));
    }
  }
  if (open !== undefined)
    throw new Error(`[docs] the code block that begins at ${relative(root, path)}:${open.line} has no end.`);
  return blocks;
}
