import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LockedError, takeLock } from "./lock.js";

let folder = "";
let path = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "llmeff-lock-"));
  path = join(folder, "new", "x.lock");
});
afterEach(() => rm(folder, { recursive: true }));

const take = () => takeLock(path, "the pool", "test");

describe("takeLock", () => {
  it("lets one in at a time, says who is there, and leaves nothing behind", async () => {
    const lock = await take();
    await expect(take()).rejects.toThrow(LockedError);
    await expect(take()).rejects.toThrow(new RegExp(`^\\[test\\] the pool is in use by process ${process.pid} on `));
    await lock.release();
    await (await take()).release();
    expect(await readdir(join(folder, "new"))).toEqual([]);
  });

  it("lets one of many in that come at once", async () => {
    const come = await Promise.allSettled(Array.from({ length: 8 }, take));
    expect(come.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });

  it("takes over the lock of a process that is gone, and no other", async () => {
    const own = await take();
    const owner = JSON.parse(await readFile(path, "utf8")) as object;
    await own.release();
    for (const gone of [{ ...owner, pid: 2 ** 30 }, { ...owner, started: "0" }, "no JSON"]) {
      await writeFile(path, typeof gone === "string" ? gone : JSON.stringify(gone));
      await (await take()).release();
    }
    await writeFile(path, JSON.stringify({ ...owner, host: "another" }));
    await expect(take()).rejects.toThrow(/on another/);
  });
});
