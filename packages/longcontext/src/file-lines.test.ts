import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { endsInNewline, fileLines, replaceLines } from "./file-lines.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "llmeff-lines-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function read(path: string): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of fileLines(path)) lines.push(line);
  return lines;
}

it("gives back the lines that were written, whatever is in them but line feeds", async () => {
  const path = join(folder, "any");
  const line = fc.string({ unit: "binary" }).map((text) => JSON.stringify(`${text}\u2028\u2029\u0085`));
  await fc.assert(
    fc.asyncProperty(fc.array(line, { minLength: 1, maxLength: 5 }), async (lines) => {
      await replaceLines(path, lines);
      expect(await read(path)).toEqual(lines);
      expect(await endsInNewline(path)).toBe(true);
    }),
    { numRuns: 30 },
  );
});

it("reads lines of many pieces, both line ends, and a last line without one", async () => {
  const path = join(folder, "long");
  const long = "größe 🌍 ".repeat(40_000);
  await writeFile(path, `${long}\r\n\n${long}b`);
  expect(await read(path)).toEqual([long, "", `${long}b`]);
  expect(await endsInNewline(path)).toBe(false);
  await writeFile(path, "");
  expect(await read(path)).toEqual([]);
  expect(await endsInNewline(path)).toBe(true);
});

it("keeps the old file when its new lines end in an error, and leaves no other behind", async () => {
  const path = join(folder, "kept");
  await writeFile(path, "old\n");
  function* failing() {
    yield "new";
    throw new RangeError("no more");
  }
  await expect(replaceLines(path, failing())).rejects.toThrow(new RangeError("no more"));
  expect(await readFile(path, "utf8")).toBe("old\n");
  expect((await readdir(folder)).filter((name) => name.startsWith("kept"))).toEqual(["kept"]);
  await expect(replaceLines(join(path, "below"), ["x"])).rejects.toThrow(/cannot write .*Check the path/);
  await expect(read(join(folder, "none"))).rejects.toThrow(/there is no such file/);
});
