import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type CodeBlock, codeBlocks, documents, root } from "./code-blocks.js";

/**
 * Every `ts` block of the documents is a program of its own: it imports all it uses, and runs as an ES module from the packages' source, in
 * an empty folder of its own in which `datasets/` and `examples/` lead to the checkout's, so it may read those
 * and write where it likes.
 */
const timeLimitMs = 120_000;
const blocks = documents().flatMap(codeBlocks);
/** Inside the checkout, because that is where the packages' names resolve. */
const moduleFolder = join(root, "test", ".blocks");

const where = ({ file, line }: CodeBlock) => `${file}:${line}`;

describe("ts blocks of the documents", () => {
  const startFolder = process.cwd();
  let workFolder = "";

  beforeAll(() => {
    workFolder = mkdtempSync(join(tmpdir(), "llmeff-docs-"));
    mkdirSync(moduleFolder, { recursive: true });
  });

  function enterOwnFolder(name: string): void {
    const folder = join(workFolder, name);
    mkdirSync(folder);
    for (const shared of ["datasets", "examples"]) {
      if (existsSync(join(root, shared))) symlinkSync(join(root, shared), join(folder, shared), "junction");
    }
    process.chdir(folder);
  }

  afterAll(() => {
    process.chdir(startFolder);
    rmSync(moduleFolder, { recursive: true, force: true });
    rmSync(workFolder, { recursive: true, force: true });
  });

  for (const block of blocks.filter(({ language }) => language === "ts")) {
    it(`${where(block)} runs`, { timeout: timeLimitMs }, async () => {
      const name = where(block).replace(/[^\w]+/g, "-");
      const path = join(moduleFolder, `${name}.ts`);
      enterOwnFolder(name);
      writeFileSync(path, `${block.text}\nexport {};\n`);
      const quiet = (["log", "info", "table"] as const).map((method) =>
        vi.spyOn(console, method).mockImplementation(() => {}),
      );
      try {
        await import(/* @vite-ignore */ path);
      } finally {
        for (const spy of quiet) spy.mockRestore();
      }
    });
  }
});

describe("sh blocks of the documents", () => {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };
  const published = new Set(
    [
      "native",
      ...["packages", join("native", "npm")].flatMap((folder) =>
        readdirSync(join(root, folder)).map((name) => join(folder, name)),
      ),
    ]
      .map((dir) => join(root, dir, "package.json"))
      .filter((path) => existsSync(path))
      .map((path) => (JSON.parse(readFileSync(path, "utf8")) as { name: string }).name),
  );

  /** What is wrong with one command line, if anything: an unknown script, package or file. */
  function problem(command: string): string | undefined {
    const words = command.split(/\s+/).filter((word) => !/^\w+=/.test(word));
    const [tool, verb = "", ...rest] = words;
    const missingFile = words.find(
      (word) =>
        /^(?:examples|scripts|bench|native|packages|docs)\/[\w./-]+$/.test(word) && !existsSync(join(root, word)),
    );
    if (missingFile !== undefined && !missingFile.includes("/build/")) return `there is no ${missingFile}`;
    if (tool === "npm" || tool === "pnpm") {
      if (/^(?:add|install|i)$/.test(verb)) {
        return rest
          .filter((name) => /^(?:@llmeff\/|llmeff)/.test(name) && !published.has(name))
          .map((name) => `there is no package ${name}`)[0];
      }
      if (verb === "exec" || verb.startsWith("-")) return undefined;
      const script = verb === "run" ? rest[0]! : verb;
      return script in manifest.scripts ? undefined : `there is no root script "${script}"`;
    }
    return /^(?:cd|curl|git|node|npx|llmeff|mpirun|sudo|apt-get|brew|tensorboard|lm_eval)$/.test(tool ?? "")
      ? undefined
      : `"${tool}" is not a command that this test knows`;
  }

  for (const block of blocks.filter(({ language }) => language === "sh" || language === "bash")) {
    it(`${where(block)} names what exists`, () => {
      const commands = block.text
        .replace(/\\\n/g, " ")
        .split("\n")
        .map((line) => line.replace(/(?:^|\s)#.*$/, "").trim())
        .flatMap((line) => line.split(/\s*(?:&&|\|)\s*/))
        .filter((line) => line !== "");
      expect(commands.map(problem).filter((found) => found !== undefined)).toEqual([]);
    });
  }
});

it("documents hold code to test", () => {
  expect(blocks.length).toBeGreaterThan(0);
});
