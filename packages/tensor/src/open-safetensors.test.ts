import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { collectGarbage } from "../../../test/garbage.js";
import { safetensorsFile } from "../test/safetensors-file.js";
import {
  DTypeError,
  decodeSafetensors,
  FormatError,
  IoError,
  loadSafetensors,
  memory,
  OptionError,
  ones,
  openSafetensors,
  saveSafetensors,
  tensor,
} from "./index.js";

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
    await collectGarbage();
    const before = memory().tensors;
    const b = await file.read("b");
    expect([...b.dataSync()]).toEqual([7]);
    expect(memory().tensors).toBe(before + 1);
    b.dispose();
    await expect(file.read("c")).rejects.toThrow(OptionError);
    await expect(file.read("c")).rejects.toThrow(/open\.safetensors: there is no tensor "c"/);
  });

  it.each([
    ["I8", "int8", 1],
    ["I16", "int16", 2],
    ["I64", "int64", 8],
    ["U16", "uint16", 2],
    ["U32", "uint32", 4],
    ["U64", "uint64", 8],
    ["F8_E4M3", "float8_e4m3", 1],
    ["F8_E5M2", "float8_e5m2", 1],
  ])("tells of a tensor of %s, and reads those beside it", async (stored, dtype, bytes) => {
    const path = join(folder, `${stored}.safetensors`);
    const header = {
      foreign: { dtype: stored, shape: [3, 2], data_offsets: [0, 6 * bytes] },
      x: { dtype: "F32", shape: [1], data_offsets: [6 * bytes, 6 * bytes + 4] },
    };
    writeFileSync(path, safetensorsFile(header, new Uint8Array(6 * bytes + 4)));
    await using file = await openSafetensors(path);
    expect(file.entries.get("foreign")).toMatchObject({ dtype, shape: [3, 2] });
    using x = await file.read("x");
    expect([...x.dataSync()]).toEqual([0]);
    await collectGarbage();
    const before = memory().tensors;
    const refused = new RegExp(`tensor "foreign" is of ${dtype}; expected one of float32, `);
    await expect(file.read("foreign")).rejects.toThrow(DTypeError);
    await expect(file.read("foreign")).rejects.toThrow(refused);
    await expect(loadSafetensors(path)).rejects.toThrow(refused);
    expect(() => decodeSafetensors(readFileSync(path))).toThrow(refused);
    expect(memory().tensors).toBe(before);
    writeFileSync(path, safetensorsFile({ ...header, x: { ...header.x, shape: [2] } }, new Uint8Array(6 * bytes + 4)));
    await expect(openSafetensors(path)).rejects.toThrow(FormatError);
    const misfit = { foreign: { ...header.foreign, shape: [7] } };
    writeFileSync(path, safetensorsFile(misfit, new Uint8Array(6 * bytes)));
    await expect(openSafetensors(path)).rejects.toThrow(`needs ${7 * bytes} bytes; data_offsets give ${6 * bytes}`);
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
