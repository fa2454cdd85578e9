import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { FormatError, IoError, memory, OptionError, ones, openSafetensors, saveSafetensors, tensor } from "./index.js";

const folder = mkdtempSync(join(tmpdir(), "llmeff-safetensors-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("openSafetensors", () => {
  it("shows what a file holds, and reads its tensors one by one", async () => {
    const path = join(folder, "open.safetensors");
    await saveSafetensors(
      path,
      { a: tensor([1, 2, 3]), b: tensor(Int32Array.of(7), { shape: [1, 1] }) },
      { made: "here" },
    );
    await using file = await openSafetensors(path);
    expect(file.path).toBe(path);
    expect(Object.fromEntries([...file.entries].map(([name, { dtype, shape }]) => [name, [dtype, shape]]))).toEqual({
      a: ["float32", [3]],
      b: ["int32", [1, 1]],
    });
    expect(file.metadata).toEqual({ made: "here" });
    const before = memory().tensors;
    const b = await file.read("b");
    expect([...b.dataSync()]).toEqual([7]);
    expect(memory().tensors).toBe(before + 1);
    b.dispose();
    await expect(file.read("c")).rejects.toThrow(OptionError);
    await expect(file.read("c")).rejects.toThrow(/open\.safetensors: there is no tensor "c"/);
  });

  it("says when the file was cut after it was opened", async () => {
    const path = join(folder, "cut.safetensors");
    await saveSafetensors(path, { a: ones([1000]) });
    const file = await openSafetensors(path);
    writeFileSync(path, readFileSync(path).subarray(0, 500));
    await expect(file.read("a")).rejects.toThrow(FormatError);
    await file.close();
    await expect(openSafetensors(join(folder, "absent"))).rejects.toThrow(IoError);
  });
});
