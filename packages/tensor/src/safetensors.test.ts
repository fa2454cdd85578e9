import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { collectGarbage } from "../../../test/garbage.js";
import { expectSameBits } from "../test/compare.js";
import { safetensorsFile } from "../test/safetensors-file.js";
import {
  type DType,
  DTypeError,
  decodeSafetensors,
  emptyCache,
  encodeSafetensors,
  FormatError,
  IoError,
  LlmeffError,
  loadSafetensors,
  memory,
  OptionError,
  ones,
  saveSafetensors,
  scope,
  type Tensor,
  tensor,
  zeros,
} from "./index.js";

const entry = (shape: unknown, begin: unknown, end: unknown, dtype: unknown = "F32") => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});
const four = new Uint8Array(4);
const eight = new Uint8Array(8);

const hostile: [what: string, bytes: Uint8Array, message: string][] = [
  ["nothing", new Uint8Array(0), "at least 8 bytes"],
  ["seven bytes", new Uint8Array(7), "at least 8 bytes"],
  ["a header longer than the file", safetensorsFile("{}", four, 1000n), "more than the file"],
  ["a header of more than 100 MB", safetensorsFile("{}", four, 100_000_001n), "more than the file"],
  ["a header of 2^64 − 1 bytes", safetensorsFile("{}", four, 2n ** 64n - 1n), "18446744073709551615"],
  ["a header of 2^63 bytes, negative when signed", safetensorsFile("{}", four, 2n ** 63n), "more than the file"],
  ["an empty header", safetensorsFile(""), "not valid JSON"],
  ["no JSON", safetensorsFile("hello"), "not valid JSON"],
  [
    "JSON with NaN",
    safetensorsFile('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', four),
    "not valid JSON",
  ],
  [
    "bytes that are not UTF-8",
    Uint8Array.of(...safetensorsFile("{}").slice(0, 8), 0xff, 0xfe),
    "not valid JSON in UTF-8",
  ],
  ["a list", safetensorsFile("[]"), "must be a JSON object"],
  ["null", safetensorsFile("null"), "must be a JSON object"],
  [
    "a name given twice",
    safetensorsFile(
      '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
      four,
    ),
    "names a tensor twice",
  ],
  [
    "a name given twice, once escaped",
    safetensorsFile(
      '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\\u0061":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
      four,
    ),
    "twice",
  ],
  ["a tensor that is a number", safetensorsFile({ a: 1 }), "expected { dtype, shape, data_offsets }"],
  ["a tensor that is null", safetensorsFile({ a: null }), "received null"],
  ["an unknown dtype", safetensorsFile({ a: entry([1], 0, 4, "F33") }, four), '"F33" is not supported'],
  ["dtype __proto__", safetensorsFile({ a: entry([1], 0, 4, "__proto__") }, four), "is not supported"],
  ["a dtype that is a list", safetensorsFile({ a: entry([1], 0, 4, ["F32"]) }, four), "is not supported"],
  ["no shape", safetensorsFile({ a: { dtype: "F32", data_offsets: [0, 4] } }, four), "shape must be"],
  ["a negative dimension", safetensorsFile({ a: entry([-1], 0, 4) }, four), "shape must be"],
  ["a fractional dimension", safetensorsFile({ a: entry([0.5], 0, 4) }, four), "shape must be"],
  ["a dimension past 2^53", safetensorsFile({ a: entry([2 ** 60], 0, 4) }, four), "shape must be"],
  [
    "dimensions whose product overflows",
    safetensorsFile({ a: entry([2 ** 32, 2 ** 32, 2 ** 32], 0, 4) }, four),
    "needs",
  ],
  [
    "dimensions whose product overflows before a 0",
    safetensorsFile({ a: entry([2 ** 52, 2 ** 52, 0], 0, 0) }),
    "more than 2^53",
  ],
  [
    "dimensions whose product overflows after a 0",
    safetensorsFile({ a: entry([0, 2 ** 40, 2 ** 40], 0, 0) }),
    "more than 2^53",
  ],
  [
    "dimensions beside a 0 that only bytes overflow",
    safetensorsFile({ a: entry([0, 2 ** 51], 0, 0) }),
    "more than 2^53",
  ],
  ["nine axes", safetensorsFile({ a: entry([1, 1, 1, 1, 1, 1, 1, 1, 1], 0, 4) }, four), "at most 8"],
  ["a million axes", safetensorsFile({ a: entry(new Array(1e6).fill(1), 0, 4) }, four), "at most 8"],
  ["offsets that are missing", safetensorsFile({ a: { dtype: "F32", shape: [1] } }, four), "data_offsets must be"],
  [
    "three offsets",
    safetensorsFile({ a: { dtype: "F32", shape: [1], data_offsets: [0, 4, 8] } }, four),
    "data_offsets must be",
  ],
  ["a negative offset", safetensorsFile({ a: entry([1], -4, 0) }, four), "data_offsets must be"],
  ["offsets backwards", safetensorsFile({ a: entry([1], 4, 0) }, four), "reach outside"],
  ["offsets past the end", safetensorsFile({ a: entry([2], 0, 8) }, four), "reach outside"],
  ["offsets of another size", safetensorsFile({ a: entry([2], 0, 4) }, four), "needs 8 bytes; data_offsets give 4"],
  ["a hole before the first tensor", safetensorsFile({ a: entry([1], 4, 8) }, eight), "overlap or have a hole"],
  [
    "overlapping tensors",
    safetensorsFile({ a: entry([1], 0, 4), b: entry([1], 0, 4) }, four),
    "overlap or have a hole",
  ],
  [
    "a hole between tensors",
    safetensorsFile({ a: entry([1], 0, 4), b: entry([1], 8, 12) }, new Uint8Array(12)),
    "overlap or have a hole",
  ],
  ["bytes after the last tensor", safetensorsFile({ a: entry([1], 0, 4) }, eight), "4 bytes follow the last tensor"],
  ["bytes without any tensor", safetensorsFile({}, four), "4 bytes follow"],
  ["metadata that is a number", safetensorsFile({ __metadata__: 1 }), "map strings to strings"],
  ["metadata with a number", safetensorsFile({ __metadata__: { step: 1 } }), "map strings to strings"],
  ["metadata with an object", safetensorsFile({ __metadata__: { a: {} } }), "map strings to strings"],
  [
    "JSON 200 000 lists deep, as a tensor",
    safetensorsFile(`{"a":${"[".repeat(2e5)}${"]".repeat(2e5)}}`),
    "[safetensors]",
  ],
  [
    "JSON 200 000 lists deep, as a shape",
    safetensorsFile(`{"a":{"dtype":"F32","shape":${"[".repeat(2e5)}${"]".repeat(2e5)},"data_offsets":[0,4]}}`, four),
    "[safetensors]",
  ],
  ["JSON 200 000 objects deep", safetensorsFile(`${'{"a":'.repeat(2e5)}1${"}".repeat(2e5)}`), "[safetensors]"],
  ["a list that doesn't end", safetensorsFile("[".repeat(1e6)), "not valid JSON"],
];

describe("decodeSafetensors", () => {
  it.each(hostile)("refuses %s", (_what, bytes, message) => {
    const before = memory();
    let error: unknown;
    try {
      decodeSafetensors(bytes);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(FormatError);
    expect((error as Error).message).toContain(message);
    expect((error as Error).message.length).toBeLessThan(1000);
    expect(memory()).toEqual({ ...before, peakBytes: expect.any(Number), cachedBytes: expect.any(Number) });
  });

  it("takes __proto__, constructor and the empty string as names like any other", () => {
    const header =
      '{"__proto__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"constructor":{"dtype":"F32","shape":[],"data_offsets":[4,8]},"":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}';
    const { tensors } = decodeSafetensors(safetensorsFile(header, eight));
    expect(Object.keys(tensors)).toEqual(["__proto__", "constructor", ""]);
    expect(Object.getPrototypeOf(tensors)).toBe(Object.prototype);
    expect(({} as Record<string, unknown>).dtype).toBeUndefined();
  });

  it("reads empty tensors whose other dimensions are as large as can be addressed", () => {
    const { tensors } = decodeSafetensors(safetensorsFile({ a: entry([0, 2 ** 40, 2 ** 10], 0, 0) }));
    expect(tensors.a!.shape).toEqual([0, 2 ** 40, 2 ** 10]);
    expect(tensors.a!.dataSync()).toHaveLength(0);
  });

  it("reads metadata of megabytes, tensors in any order, and data at any alignment", () => {
    const text = 'x"\\{:'.repeat(1e6);
    const data = Uint8Array.of(7, 0, 0, 128, 63, 0, 0, 0, 64); // U8 7, then F32 1 and 2, which begin at an odd byte
    const { tensors, metadata } = decodeSafetensors(
      safetensorsFile({ __metadata__: { text }, b: entry([2], 1, 9), a: entry([], 0, 1, "U8") }, data),
    );
    expect(metadata.text === text).toBe(true);
    expect([...tensors.b!.dataSync(), tensors.a!.itemSync()]).toEqual([1, 2, 7]);
  });

  const small = () =>
    encodeSafetensors({ a: tensor([1, 2, 3]), b: tensor([[1], [0]], { dtype: "bool" }) }, { step: "7" });

  it("refuses a file that ends early, at whatever byte", async () => {
    const bytes = await small();
    expect(Object.keys(decodeSafetensors(bytes).tensors)).toEqual(["a", "b"]);
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decodeSafetensors(bytes.subarray(0, length)), `${length} bytes`).toThrow(FormatError);
    }
  });

  it("gives tensors or a FormatError for any change of bytes, a DTypeError if it is one to a dtype that others store", async () => {
    const bytes = await small();
    const change = fc.record({ at: fc.nat(bytes.length - 1), value: fc.integer({ min: 0, max: 255 }) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const mutated = bytes.slice();
        for (const { at, value } of changes) mutated[at] = value;
        try {
          scope(() => decodeSafetensors(mutated));
        } catch (error) {
          const { message } = error as Error;
          expect(error).toBeInstanceOf(message.includes("openSafetensors reads the others") ? DTypeError : FormatError);
        }
      }),
      { numRuns: 2000, examples: [[[{ at: 51, value: "U".charCodeAt(0) }]]] },
    );
  });

  it("gives tensors or a FormatError for any JSON as header", () => {
    fc.assert(
      fc.property(fc.json(), fc.uint8Array({ maxLength: 16 }), (json, data) => {
        try {
          scope(() => decodeSafetensors(safetensorsFile(json, data)));
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("encodeSafetensors", () => {
  const bits: Record<DType, Tensor["dtype"] extends string ? () => Tensor : never> = {
    float32: () => tensor(new Float32Array([0, -0, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 1e-45])),
    float64: () => tensor(new Float64Array([0, -0, 1.5, Number.NaN, Number.NEGATIVE_INFINITY, 5e-324])),
    bfloat16: () => tensor(Uint16Array.of(0, 0x8000, 0x7fc0, 0x7f80, 1, 0x3f80), { dtype: "bfloat16" }),
    float16: () => tensor(Uint16Array.of(0, 0x8000, 0x7e00, 0x7c00, 1, 0x3c00), { dtype: "float16" }),
    int32: () => tensor(Int32Array.of(0, -1, 2 ** 31 - 1, -(2 ** 31), 5, 6)),
    uint8: () => tensor(Uint8Array.of(0, 1, 127, 128, 255, 9)),
    bool: () => tensor(Uint8Array.of(0, 1, 1, 0, 1, 0), { dtype: "bool" }),
  };

  it.each(Object.keys(bits) as DType[])("keeps every bit of %s, and views as they read", async (dtype) => {
    const x = bits[dtype]();
    const named = {
      whole: x,
      view: x.reshape([2, 3]).T,
      scalar: x.slice(0, 2, 3).reshape([]),
      empty: zeros([0, 5], { dtype }),
    };
    const { tensors } = decodeSafetensors(await encodeSafetensors(named));
    for (const [name, original] of Object.entries(named)) {
      expect(tensors[name]).toMatchObject({ dtype, shape: original.shape });
      expectSameBits(tensors[name]!.dataSync(), original.dataSync(), name);
    }
  });

  it("keeps any names and metadata, aligns the data to 8 bytes, and encodes the same bytes again", async () => {
    const name = fc.string({ unit: "binary" }).filter((s) => s !== "__metadata__");
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(name, fc.uint8Array({ maxLength: 5 })),
        fc.dictionary(name, fc.string({ unit: "grapheme" })),
        async (arrays, metadata) => {
          const wellFormed = (text: string) => Buffer.from(text).toString() === text;
          fc.pre([...Object.keys(arrays), ...Object.entries(metadata).flat()].every(wellFormed));
          const tensors = Object.fromEntries(Object.entries(arrays).map(([key, data]) => [key, tensor(data)]));
          const bytes = await encodeSafetensors(tensors, metadata);
          const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
          expect(headerBytes % 8).toBe(0);
          const read = decodeSafetensors(bytes);
          expect(Object.entries(read.metadata).sort()).toEqual(Object.entries(metadata).sort());
          expect(Object.keys(read.tensors).sort()).toEqual(Object.keys(arrays).sort());
          for (const [key, x] of Object.entries(read.tensors)) expect(x.dataSync()).toEqual(arrays[key]);
          expectSameBits(await encodeSafetensors(read.tensors, read.metadata), bytes);
        },
      ),
      { numRuns: 100 },
    );
  });

  it("keeps a tensor called __proto__", async () => {
    const tensors = JSON.parse('{"__proto__":null,"a":null}') as Record<string, Tensor>;
    for (const key of Object.keys(tensors)) Object.defineProperty(tensors, key, { value: ones([2]) });
    expect(Object.keys(decodeSafetensors(await encodeSafetensors(tensors)).tensors).sort()).toEqual(["__proto__", "a"]);
  });

  it("refuses a tensor called __metadata__", async () => {
    await expect(encodeSafetensors({ __metadata__: ones([1]) })).rejects.toThrow(OptionError);
  });
});

describe("saveSafetensors", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "llmeff-safetensors-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("writes what loadSafetensors reads, with the values as of the call", async () => {
    const path = join(folder, "a.safetensors");
    const x = tensor([1, 2, 3]);
    const saved = saveSafetensors(path, { x }, { note: "ä" });
    x.dispose();
    await saved;
    const { tensors, metadata } = await loadSafetensors(path);
    expect([...tensors.x!.dataSync()]).toEqual([1, 2, 3]);
    expect(metadata).toEqual({ note: "ä" });
  });

  it("lets calls for one path run side by side: one of them wins, whole", async () => {
    const path = join(folder, "race.safetensors");
    const values = Array.from({ length: 8 }, (_, i) => new Array<number>(1000).fill(i));
    await Promise.all(values.map((x) => saveSafetensors(path, { x: tensor(x) })));
    const { tensors } = await loadSafetensors(path);
    expect(values).toContainEqual([...tensors.x!.dataSync()]);
    expect(readdirSync(folder).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  it("changes nothing and leaves nothing behind when it fails", async () => {
    const path = join(folder, "b.safetensors");
    await saveSafetensors(path, { x: ones([2]) });
    const before = readFileSync(path);
    const gone = ones([2]);
    gone.dispose();
    await expect(saveSafetensors(path, { x: ones([2]), gone })).rejects.toThrow(LlmeffError);
    expect(readFileSync(path).equals(before)).toBe(true);
    await expect(saveSafetensors(join(folder, "no", "such", "folder"), { x: ones([1]) })).rejects.toThrow(IoError);
    await expect(saveSafetensors(folder, { x: ones([1]) })).rejects.toThrow(/can't be written: .*Nothing was changed/);
    expect(readdirSync(folder).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  it.skipIf(process.platform !== "linux")("tells a full disk as an IoError", async () => {
    await expect(saveSafetensors("/dev/full/x", { x: ones([1]) })).rejects.toThrow(IoError);
  });
});

describe("loadSafetensors", () => {
  it("says which file is missing or broken", async () => {
    await expect(loadSafetensors("/no/such/file")).rejects.toMatchObject({
      code: "ERR_IO",
      message: expect.stringContaining("/no/such/file"),
      cause: expect.anything(),
    });
    const path = join(tmpdir(), `llmeff-broken-${process.pid}.safetensors`);
    writeFileSync(path, "not a model");
    await expect(loadSafetensors(path)).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringContaining(path),
    });
    rmSync(path);
  });

  it("gives what decodeSafetensors gives, for tensors in any order and at any alignment", async () => {
    const path = join(tmpdir(), `llmeff-order-${process.pid}.safetensors`);
    const data = Uint8Array.of(7, 0, 0, 128, 63, 0, 0, 0, 64);
    const bytes = safetensorsFile(
      { b: entry([2], 1, 9), a: entry([], 0, 1, "U8"), c: entry([0, 3], 9, 9, "BF16") },
      data,
    );
    writeFileSync(path, bytes);
    const [fromFile, fromMemory] = [await loadSafetensors(path), decodeSafetensors(bytes)];
    rmSync(path);
    expect(Object.keys(fromFile.tensors)).toEqual(Object.keys(fromMemory.tensors));
    for (const [name, x] of Object.entries(fromMemory.tensors)) {
      expect(fromFile.tensors[name]).toMatchObject({ dtype: x.dtype, shape: x.shape });
      expectSameBits(fromFile.tensors[name]!.dataSync(), x.dataSync(), name);
    }
  });

  it("refuses every hostile file as decodeSafetensors does, and leaks nothing", async () => {
    const path = join(tmpdir(), `llmeff-hostile-${process.pid}.safetensors`);
    await collectGarbage();
    const before = memory();
    for (const [what, bytes, message] of hostile) {
      writeFileSync(path, bytes);
      await expect(loadSafetensors(path), what).rejects.toThrow(FormatError);
      await expect(loadSafetensors(path), what).rejects.toThrow(message.replace("[safetensors]", path));
    }
    rmSync(path);
    expect(memory()).toEqual({ ...before, peakBytes: expect.any(Number), cachedBytes: expect.any(Number) });
  });

  it.skipIf(process.platform !== "linux")("says that a folder can't be read", async () => {
    await expect(loadSafetensors(tmpdir())).rejects.toThrow(IoError);
  });

  it("reads a tensor that is longer than one read, every byte in its place", async () => {
    const path = join(tmpdir(), `llmeff-long-${process.pid}.safetensors`);
    const length = 2 ** 26 + 8;
    const header = safetensorsFile({ a: entry([length], 0, length, "U8") });
    const marks = [0, 2 ** 26 - 1, 2 ** 26, length - 1];
    const target = openSync(path, "w");
    writeSync(target, header, 0, header.length, 0);
    for (const [i, at] of marks.entries()) writeSync(target, Uint8Array.of(i + 1), 0, 1, header.length + at);
    closeSync(target);
    try {
      using a = (await loadSafetensors(path)).tensors.a!;
      const bytes = a.dataSync() as Uint8Array;
      expect(marks.map((at) => bytes[at])).toEqual([1, 2, 3, 4]);
      expect(bytes.reduce((sum, byte) => sum + byte, 0)).toBe(10);
    } finally {
      rmSync(path);
      emptyCache();
    }
  });
});
