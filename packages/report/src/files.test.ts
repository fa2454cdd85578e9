import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { IoError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "../test/temporary-folder.js";
import { AppendFile, writeFileAtomic } from "./files.js";

describe("writeFileAtomic", () => {
  it("makes folders, replaces the file and leaves nothing else behind", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, "deep", "report.html");
    await writeFileAtomic(path, "one");
    await writeFileAtomic(path, "two");
    expect(await readFile(path, "utf8")).toBe("two");
    expect(await readdir(join(folder, "deep"))).toEqual(["report.html"]);
  });

  it("leaves no temporary file when the target cannot be replaced", async () => {
    const folder = await temporaryFolder();
    const target = join(folder, "taken");
    await mkdir(join(target, "inside"), { recursive: true });
    await expect(writeFileAtomic(target, "text")).rejects.toThrow(IoError);
    expect(await readdir(folder)).toEqual(["taken"]);
  });

  it("never shows a reader a part of the file", async () => {
    const path = join(await temporaryFolder(), "file");
    const contents = ["a".repeat(300_000), "b".repeat(300_000)];
    await writeFileAtomic(path, contents[0]!);
    let writing = true;
    const writer = (async () => {
      for (let i = 0; i < 20; i++) await writeFileAtomic(path, contents[i % 2]!);
      writing = false;
    })();
    while (writing) expect(contents).toContain(await readFile(path, "utf8"));
    await writer;
  });
});

describe("AppendFile", () => {
  it("keeps the order of a burst and of what follows during the write", async () => {
    const path = join(await temporaryFolder(), "log");
    const file = await AppendFile.open(path);
    const lines = Array.from({ length: 500 }, (_, i) => `${i}\n`);
    for (const line of lines) {
      file.append(Buffer.from(line));
      if (line.endsWith("00\n")) await new Promise(setImmediate);
    }
    await file.close();
    await file.close();
    expect(await readFile(path, "utf8")).toBe(lines.join(""));
  });

  it("refuses to append after close", async () => {
    const file = await AppendFile.open(join(await temporaryFolder(), "log"));
    await file.close();
    expect(() => file.append(Buffer.from("x"))).toThrow(/is closed/);
  });

  it.runIf(process.platform === "linux")("reports a full disk at the flush and at every later call", async () => {
    const file = await AppendFile.open("/dev/full");
    file.append(Buffer.from("x"));
    await expect(file.flush()).rejects.toThrow(/cannot append to \/dev\/full: ENOSPC/);
    expect(() => file.append(Buffer.from("y"))).toThrow(IoError);
    await expect(file.close()).rejects.toThrow(IoError);
  });

  it("names the path that cannot be opened", async () => {
    const path = join(await temporaryFolder(), "plain");
    await writeFile(path, "");
    await expect(AppendFile.open(join(path, "inside"))).rejects.toThrow(/cannot open .*plain/);
  });
});
