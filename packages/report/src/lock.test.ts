import { link, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError } from "@llmeff/native/errors";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LockedError, takeLock } from "./lock.js";

vi.mock("node:fs/promises", async (importOriginal) => {
  const original = await importOriginal<typeof import("node:fs/promises")>();
  return { ...original, link: vi.fn(original.link) };
});

let folder = "";
let path = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "llmeff-lock-"));
  path = join(folder, "new", "x.lock");
});
afterEach(async () => {
  vi.mocked(link).mockReset();
  await rm(folder, { recursive: true });
});

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
    for (const gone of [{ ...owner, pid: 2 ** 30 }, { ...owner, started: "0" }, ""]) {
      await writeFile(path, typeof gone === "string" ? gone : JSON.stringify(gone));
      await (await take()).release();
    }
    await writeFile(path, JSON.stringify({ ...owner, host: "another" }));
    await expect(take()).rejects.toThrow(/on another/);
  });

  it.each([
    [
      "a file of another kind",
      '# Dependencies\n[[package]]\nname = "numpy"\n',
      'a file that begins with "# Dependencies',
    ],
    ["JSON of another kind", '{"lockfileVersion":3}', 'a file that begins with "{\\"lockfileVersion'],
    ["half an owner", '{"id":"a","pid":0,"host":"b"}', "a file that begins with"],
    ["null", "null", "a file that begins with"],
  ])("leaves %s as it is", async (_, content, came) => {
    await mkdir(join(folder, "new"));
    await writeFile(path, content);
    const taking = take();
    await expect(taking).rejects.toThrow(FormatError);
    await expect(taking).rejects.toThrow(`[test] ${path} is in the way: expected a lock of the pool, came ${came}`);
    await expect(taking).rejects.toThrow(/; move it\.$/);
    expect(await readFile(path, "utf8")).toBe(content);
    expect(await readdir(join(folder, "new"))).toEqual(["x.lock"]);
  });

  it("leaves a folder and a link as they are", async () => {
    await mkdir(path, { recursive: true });
    await expect(take()).rejects.toThrow("came a folder; move it.");
    expect(await readdir(join(folder, "new"))).toEqual(["x.lock"]);
    await rm(path, { recursive: true });
    await symlink("nowhere", path);
    await expect(take()).rejects.toThrow("came no plain file; move it.");
    expect(await readdir(join(folder, "new"))).toEqual(["x.lock"]);
  });

  it.each(["EPERM", "ENOTSUP", "ENOSYS"])("does without hard links, which give %s", async (code) => {
    vi.mocked(link).mockRejectedValue(Object.assign(new Error(code), { code }));
    const come = await Promise.allSettled(Array.from({ length: 8 }, take));
    const taken = come.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    expect(taken).toHaveLength(1);
    for (const one of come) if (one.status === "rejected") expect(one.reason).toBeInstanceOf(LockedError);
    await taken[0]!.release();
    await writeFile(path, "");
    await (await take()).release();
    expect(await readdir(join(folder, "new"))).toEqual([]);
  });

  it("throws what else a link fails with", async () => {
    vi.mocked(link).mockRejectedValue(Object.assign(new Error("full"), { code: "ENOSPC" }));
    await expect(take()).rejects.toThrow("full");
    expect(await readdir(join(folder, "new"))).toEqual([]);
  });
});
