import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { FormatError, IoError } from "@llmeff/native/errors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeIdx, loadIdx } from "./idx.js";

const header = (type: number, ...shape: number[]) => {
  const bytes = Buffer.alloc(4 + 4 * shape.length);
  bytes[2] = type;
  bytes[3] = shape.length;
  for (const [axis, n] of shape.entries()) bytes.writeUInt32BE(n, 4 + 4 * axis);
  return bytes;
};
const idx = (type: number, shape: number[], elements: Uint8Array) =>
  new Uint8Array(Buffer.concat([header(type, ...shape), elements]));

describe("decodeIdx", () => {
  it("reads every type of elements, big-endian, from any offset", () => {
    const wide = Buffer.alloc(16);
    wide.writeInt16BE(-2, 0);
    wide.writeInt16BE(300, 2);
    expect(decodeIdx(idx(11, [2], wide.subarray(0, 4)))).toEqual({ shape: [2], data: Int16Array.of(-2, 300) });
    wide.writeInt32BE(-70000, 0);
    expect(decodeIdx(idx(12, [1], wide.subarray(0, 4))).data).toEqual(Int32Array.of(-70000));
    wide.writeFloatBE(1.5, 0);
    expect(decodeIdx(idx(13, [1], wide.subarray(0, 4))).data).toEqual(Float32Array.of(1.5));
    wide.writeDoubleBE(Math.PI, 0);
    expect(decodeIdx(idx(14, [1], wide.subarray(0, 8))).data).toEqual(Float64Array.of(Math.PI));
    expect(decodeIdx(idx(9, [2], Uint8Array.of(255, 1))).data).toEqual(Int8Array.of(-1, 1));
    const shifted = Buffer.concat([Buffer.alloc(3), idx(8, [1, 2], Uint8Array.of(7, 200))]).subarray(3);
    expect(decodeIdx(shifted)).toEqual({ shape: [1, 2], data: Uint8Array.of(7, 200) });
  });

  it("reads arrays without axes and without elements", () => {
    expect(decodeIdx(idx(8, [], Uint8Array.of(9)))).toEqual({ shape: [], data: Uint8Array.of(9) });
    expect(decodeIdx(idx(8, [0, 28], new Uint8Array(0)))).toEqual({ shape: [0, 28], data: new Uint8Array(0) });
  });

  it("says what is wrong with other bytes", () => {
    expect(() => decodeIdx(new Uint8Array(0))).toThrow(/received nothing/);
    expect(() => decodeIdx(Uint8Array.of(0x89, 0x50, 0x4e, 0x47))).toThrow(/received 89 50 4e 47/);
    expect(() => decodeIdx(Uint8Array.of(0, 0, 10, 1))).toThrow(FormatError);
    expect(() => decodeIdx(header(8, 3, 4).subarray(0, 9))).toThrow(/2 axes need a header of 12 bytes; received 9/);
    expect(() => decodeIdx(idx(8, [3], Uint8Array.of(1, 2)))).toThrow(/shape \[3\] needs 11 bytes; received 10/);
    expect(() => decodeIdx(idx(8, [1], Uint8Array.of(1, 2)))).toThrow(FormatError);
  });
});

describe("loadIdx", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "llmeff-idx-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("reads plain and gzip files alike, whatever their names", async () => {
    const bytes = idx(8, [2, 2], Uint8Array.of(1, 2, 3, 4));
    for (const [name, content] of [
      ["plain", bytes],
      ["packed", gzipSync(bytes)],
    ] as const) {
      await writeFile(join(folder, name), content);
      expect(await loadIdx(join(folder, name))).toEqual({ shape: [2, 2], data: Uint8Array.of(1, 2, 3, 4) });
    }
  });

  it("names the file in its errors", async () => {
    const path = join(folder, "broken.gz");
    await expect(loadIdx(path)).rejects.toThrow(IoError);
    await writeFile(path, gzipSync(idx(8, [2], Uint8Array.of(1, 2))).subarray(0, 20));
    await expect(loadIdx(path)).rejects.toThrow(/broken\.gz is a damaged gzip file/);
    await writeFile(path, "text");
    await expect(loadIdx(path)).rejects.toThrow(/broken\.gz: expected 00 00/);
  });
});
