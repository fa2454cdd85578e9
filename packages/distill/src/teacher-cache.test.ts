import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "@llmeff/data";
import { FormatError, IoError, OptionError } from "@llmeff/tensor";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { decodeLogProb, encodeLogProb } from "./log-prob-codes.js";
import {
  type CachedPredictions,
  openTeacherCache,
  type TeacherCacheOptions,
  TeacherCacheWriter,
} from "./teacher-cache.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "llmeff-cache-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const tokenizerHash = "ab".repeat(32);
const base: TeacherCacheOptions = { vocabSize: 50, k: 3, tokenCount: 9, tokenizerHash };

function predictions(
  count: number,
  { vocabSize, k, sampled, tail = !sampled }: TeacherCacheOptions,
): CachedPredictions {
  const random = new Random(4, "test/cache");
  const logs = (length: number) => Float32Array.from({ length }, () => -12 * random.uniform());
  return {
    ids: Int32Array.from({ length: count * k }, () => random.integer(0, vocabSize)),
    logProbs: sampled ? undefined : logs(count * k),
    tailLogProb: tail ? logs(count) : undefined,
  };
}

async function write(options: TeacherCacheOptions = base, name = "cache.lkd"): Promise<string> {
  const path = join(folder, name);
  await using writer = await TeacherCacheWriter.open(path, options);
  await writer.skip(1);
  await writer.append(predictions(options.tokenCount - 1, options));
  await writer.finish();
  return path;
}

describe("log-probabilities in 16 bits", () => {
  it("are off by half a step at most, and clamped at the ends", () => {
    fc.assert(
      fc.property(fc.double({ min: -24, max: 0, noNaN: true }), (logProb) => {
        const code = encodeLogProb(logProb, -24);
        expect(Number.isInteger(code) && code >= 0 && code <= 65_535).toBe(true);
        expect(Math.abs(decodeLogProb(code, -24) - logProb)).toBeLessThanOrEqual(24 / 65_535 / 2 + 1e-12);
      }),
    );
    expect([encodeLogProb(Number.NEGATIVE_INFINITY, -24), encodeLogProb(-99, -24), encodeLogProb(1e-9, -24)]).toEqual([
      65_535, 65_535, 0,
    ]);
    expect(Object.is(decodeLogProb(0, -24), 0)).toBe(true);
  });
});

describe("TeacherCacheWriter", () => {
  it.each([
    base,
    { ...base, tail: false },
    { ...base, narrowIds: false },
    { ...base, vocabSize: 100_000 },
    { ...base, sampled: true },
    { ...base, sampled: true, k: 4, narrowIds: false },
    { ...base, k: 1, lo: -12 },
  ])("keeps predictions to the precision of the format: %j", async (options) => {
    await using cache = await openTeacherCache(await write(options), options);
    const wanted = predictions(options.tokenCount - 1, options);
    const { ids, logProbs, tailLogProb } = await cache.read(3, 5);
    expect([...ids]).toEqual([...wanted.ids.subarray(2 * options.k, 7 * options.k)]);
    const step = -(options.lo ?? -24) / 65_535;
    const near = (got: ArrayLike<number> | undefined, want: ArrayLike<number> | undefined, from: number) => {
      expect(got === undefined).toBe(want === undefined);
      for (let i = 0; got && i < got.length; i++) expect(Math.abs(got[i]! - want![from + i]!)).toBeLessThan(step);
    };
    near(logProbs, wanted.logProbs, 2 * options.k);
    near(tailLogProb, wanted.tailLogProb, 2);
    expect([...(await cache.read(0, 1)).ids]).toEqual(new Array(options.k).fill(0));
    expect((await cache.read(9, 0)).ids).toHaveLength(0);
  });

  it("has the size that the specification tells: 196 bytes a token for 32 of them and a tail", async () => {
    const path = await write({ ...base, vocabSize: 100_000, k: 32 });
    expect(readFileSync(path)).toHaveLength(64 + 9 * 196);
  });

  it("gives the file its name when it is complete, and leaves nothing otherwise", async () => {
    const path = join(folder, "cache.lkd");
    {
      await using writer = await TeacherCacheWriter.open(path, base);
      await writer.append(predictions(4, base));
      expect(readdirSync(folder)).toEqual(["cache.lkd.partial"]);
      await expect(writer.finish()).rejects.toThrow("9 tokens were announced; 4 were written.");
      await expect(writer.append(predictions(6, base))).rejects.toThrow(
        "9 tokens were announced; 10 would be written.",
      );
    }
    expect(readdirSync(folder)).toEqual([]);
  });

  it("refuses what the header doesn't say, and options outside their domain", async () => {
    const path = join(folder, "cache.lkd");
    await using writer = await TeacherCacheWriter.open(path, base);
    const good = predictions(1, base);
    await expect(writer.append({ ...good, ids: Int32Array.of(1, 2) })).rejects.toThrow(OptionError);
    await expect(writer.append({ ...good, tailLogProb: undefined })).rejects.toThrow(
      "and a tail; received 3, 3 and none",
    );
    await expect(writer.append({ ...good, ids: Int32Array.of(1, 2, 50) })).rejects.toThrow(
      "ids must be in 0..49; received 50",
    );
    for (const wrong of [{ logProbs: Float32Array.of(-1, Number.NaN, -2) }, { tailLogProb: Float32Array.of(0.5) }]) {
      const message = /log-probabilities must be at most 0; received (NaN|0\.5)\. Did the teacher diverge\?/;
      await expect(writer.append({ ...good, ...wrong })).rejects.toThrow(message);
    }
    expect(writer.count).toBe(0);
    for (const wrong of [
      { k: 51 },
      { k: 0 },
      { tokenCount: 0 },
      { lo: 1 },
      { tokenizerHash: "abc" },
      { sampled: true, tail: true },
    ]) {
      await expect(TeacherCacheWriter.open(path, { ...base, ...wrong })).rejects.toThrow(OptionError);
    }
    await expect(TeacherCacheWriter.open(path, { ...base, vocabSize: 70_000, narrowIds: true })).rejects.toThrow(
      "at most 65536",
    );
    await expect(TeacherCacheWriter.open(join(folder, "none", "cache.lkd"), base)).rejects.toThrow(IoError);
  });
});

describe("openTeacherCache", () => {
  it("refuses another run's cache, naming both values", async () => {
    const path = await write();
    await expect(openTeacherCache(path, { ...base, vocabSize: 51 })).rejects.toThrow(
      "has vocabSize 50; this run has 51",
    );
    await expect(openTeacherCache(path, { ...base, tokenCount: 10 })).rejects.toThrow(
      "has tokenCount 9; this run has 10",
    );
    const tokenizerHashElse = "cd".repeat(32);
    await expect(openTeacherCache(path, { ...base, tokenizerHash: tokenizerHashElse })).rejects.toThrow(FormatError);
  });

  it("refuses a damaged file", async () => {
    const path = await write();
    const bytes = readFileSync(path);
    const damaged: [(copy: Buffer) => Buffer, string][] = [
      [(copy) => copy.fill("X", 0, 1), "begins with LKD1"],
      [(copy) => copy.subarray(0, 40), "begins with LKD1"],
      [(copy) => copy.fill(2, 4, 5), "expected version 1; received 2"],
      [(copy) => copy.fill(8, 28, 29), "expected flags of 1, 2 and 4; received 8"],
      [(copy) => copy.fill(0, 12, 16), "k must be an integer in 1..50; received 0"],
      [(copy) => copy.subarray(0, -1), "Is it complete?"],
      [(copy) => Buffer.concat([copy, Buffer.from([0])]), "Is it complete?"],
    ];
    for (const [damage, message] of damaged) {
      writeFileSync(path, damage(Buffer.from(bytes)));
      await expect(openTeacherCache(path, base)).rejects.toThrow(message);
      await expect(openTeacherCache(path, base)).rejects.toThrow(FormatError);
    }
    await expect(openTeacherCache(join(folder, "none"), base)).rejects.toThrow(IoError);
  });

  it("tells of ids that are no tokens, of a file that has become shorter, and of tokens that the stream doesn't have", async () => {
    const path = await write();
    const bytes = readFileSync(path);
    const at = 64 + 4 * ((bytes.length - 64) / 9);
    bytes.writeUInt16LE(50, at);
    writeFileSync(path, bytes);
    await using cache = await openTeacherCache(path, base);
    await expect(cache.read(3, 3)).rejects.toThrow("token 4 has id 50 of a vocabulary of 50");
    await expect(cache.read(8, 2)).rejects.toThrow("2 tokens from 8 on were asked for; there are 9");
    for (const count of [1.5, -1, Number.NaN]) await expect(cache.read(0, count)).rejects.toThrow(OptionError);
    truncateSync(path, 100);
    await expect(cache.read(7, 1)).rejects.toThrow("has become shorter");
    expect(existsSync(path)).toBe(true);
  });
});
