import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, IndexOutOfRangeError, IoError, OptionError } from "@llmeff/native/errors";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Random } from "./random.js";
import { ShardWindows } from "./shard-windows.js";
import { openTokenShards, writeTokenShards } from "./token-shards.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "llmeff-shards-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function documents(count: number, vocabSize: number): number[][] {
  const random = new Random(3, "test/shards");
  return Array.from({ length: count }, () =>
    Array.from({ length: random.integer(1, 30) }, () => random.integer(0, vocabSize)),
  );
}

describe("writeTokenShards", () => {
  it("writes the bytes of the format", async () => {
    const [path] = await writeTokenShards(folder, [[1, 2, 3], [4]], { vocabSize: 1000 });
    expect(readFileSync(`${path}.bin`).toString("hex")).toBe("0100020003000400");
    const u64 = (n: number) => Buffer.from(BigUint64Array.of(BigInt(n)).buffer).toString("hex");
    const i32 = (n: number) => Buffer.from(Int32Array.of(n).buffer).toString("hex");
    const magic = Buffer.from("MMIDIDX\0\0", "latin1").toString("hex");
    expect(readFileSync(`${path}.idx`).toString("hex")).toBe(
      [magic, u64(1), "08", u64(2), u64(3), i32(3), i32(1), u64(0), u64(6), u64(0), u64(1), u64(2)].join(""),
    );
  });

  it("leaves nothing unfinished behind when the documents or the signal stop it", async () => {
    async function* broken() {
      yield [1, 2, 3];
      yield [4, 5, 6];
      throw new Error("no more");
    }
    await expect(writeTokenShards(folder, broken(), { vocabSize: 10, maxTokens: 3 })).rejects.toThrow("no more");
    expect(readdirSync(folder).sort()).toEqual([
      "tokens-00000.bin",
      "tokens-00000.idx",
      "tokens-00001.bin",
      "tokens-00001.idx",
    ]);
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(writeTokenShards(folder, [[1]], { vocabSize: 10, name: "other", signal })).rejects.toThrow("enough");
    expect(readdirSync(folder).filter((name) => name.startsWith("other"))).toEqual([]);
  });

  it("refuses ids out of the vocabulary and a folder with shards of the name", async () => {
    await expect(writeTokenShards(folder, [[10]], { vocabSize: 10 })).rejects.toThrow(IndexOutOfRangeError);
    expect(readdirSync(folder)).toEqual([]);
    await writeTokenShards(folder, [[1]], { vocabSize: 10 });
    await expect(writeTokenShards(folder, [[1]], { vocabSize: 10 })).rejects.toThrow("has tokens-00000.idx already");
    writeFileSync(join(folder, "file"), "");
    await expect(writeTokenShards(join(folder, "file"), [[1]], { vocabSize: 10 })).rejects.toThrow(IoError);
  });
});

describe("openTokenShards", () => {
  it.each([200, 40_000, 100_000])("reads back documents and stream, ids below %d", async (vocabSize) => {
    const written = documents(50, vocabSize);
    const paths = await writeTokenShards(folder, written, { vocabSize, maxTokens: 200, eos: 7 });
    expect(paths.length).toBeGreaterThan(2);
    await using shards = await openTokenShards(paths);
    const stream = written.flatMap((document) => [...document, 7]);
    expect([shards.count, shards.tokenCount]).toEqual([50, stream.length]);
    for (const [i, document] of written.entries()) expect([...(await shards.document(i))]).toEqual([...document, 7]);
    for (const start of [0, 150, 199, 260, stream.length - 90]) {
      expect([...(await shards.read(start, 90))]).toEqual(stream.slice(start, start + 90));
    }
    expect(shards.documentStart(50)).toBe(stream.length);
    await expect(shards.read(stream.length - 1, 2)).rejects.toThrow(OptionError);
    expect(() => shards.documentStart(51)).toThrow(OptionError);
  });

  it("refuses what is damaged, another format, or missing", async () => {
    const [path] = await writeTokenShards(folder, [[1, 2, 3], [4]], { vocabSize: 1000 });
    const index = readFileSync(`${path}.idx`);
    const damaged: [(bytes: Buffer) => Buffer, string][] = [
      [(bytes) => bytes.subarray(0, 20), "expected the index of a Megatron data set"],
      [(bytes) => bytes.fill("X", 0, 1), "expected the index of a Megatron data set"],
      [(bytes) => bytes.fill(2, 9, 10), "expected version 1; received 2"],
      [(bytes) => bytes.fill(6, 17, 18), "received type 6"],
      [(bytes) => bytes.subarray(0, -1), "need 82 bytes; received 81"],
      [(bytes) => bytes.fill(9, 34, 35), "sequence 1 has length 1 at byte 6; expected it at 18"],
      [(bytes) => bytes.fill(9, 58, 59), "documents are not in order"],
    ];
    for (const [damage, message] of damaged) {
      writeFileSync(`${path}.idx`, damage(Buffer.from(index)));
      await expect(openTokenShards([path!])).rejects.toThrow(message);
      await expect(openTokenShards([path!])).rejects.toThrow(FormatError);
    }
    writeFileSync(`${path}.idx`, index);
    truncateSync(`${path}.bin`, 6);
    await expect(openTokenShards([path!])).rejects.toThrow("has 6 bytes but its index tells of 8");
    await expect(openTokenShards([join(folder, "none")])).rejects.toThrow(IoError);
    await expect(openTokenShards([])).rejects.toThrow(OptionError);
  });

  it("tells when a shard has become shorter since", async () => {
    const [path] = await writeTokenShards(folder, [[1, 2, 3], [4]], { vocabSize: 1000 });
    await using shards = await openTokenShards([`${path}.bin`]);
    truncateSync(`${path}.bin`, 4);
    await expect(shards.read(0, 4)).rejects.toThrow("has become shorter");
  });
});

describe("ShardWindows", () => {
  async function windows(options = {}) {
    const stream = Array.from({ length: 400 }, (_, i) => i);
    const cut = [stream.slice(0, 90), stream.slice(90, 260), stream.slice(260)];
    const paths = readdirSync(folder).length
      ? [0, 1, 2].map((i) => join(folder, `tokens-0000${i}`))
      : await writeTokenShards(folder, cut, { vocabSize: 400, maxTokens: 1 });
    const shards = await openTokenShards(paths);
    return { shards, data: new ShardWindows(shards, { seqLen: 8, batchSize: 5, seed: 6, ...options }) };
  }

  it("visits every window of an epoch once, with its place in the stream", async () => {
    const { shards, data } = await windows({ batchSize: 7 });
    const starts: number[] = [];
    for (let i = 0; i < 7; i++) {
      const { tokens, targets, origins } = await data.next();
      for (const [b, origin] of origins!.entries()) {
        starts.push(origin);
        expect([...tokens.subarray(8 * b, 8 * b + 8)]).toEqual([...(await shards.read(origin, 8))]);
        expect([...targets.subarray(8 * b, 8 * b + 8)]).toEqual([...(await shards.read(origin + 1, 8))]);
      }
    }
    const ordered = starts.toSorted((a, b) => a - b);
    expect(ordered).toEqual(ordered.map((_, i) => ordered[0]! + 8 * i));
    expect(starts).not.toEqual(ordered);
    await shards.close();
  });

  it("resumes with the same batches, and refuses a state of other data", async () => {
    const { shards, data } = await windows();
    for (let i = 0; i < 13; i++) await data.next();
    const state = JSON.parse(JSON.stringify(data.state()));
    const again = await windows();
    again.data.restore(state);
    for (let i = 0; i < 12; i++) expect(await again.data.next()).toEqual(await data.next());
    expect(() => new ShardWindows(shards, { seqLen: 9, batchSize: 5, seed: 6 }).restore(state)).toThrow(FormatError);
    expect(() => data.restore({ ...state, index: 1000 })).toThrow("beyond");
    expect(() => new ShardWindows(shards, { seqLen: 400, batchSize: 1 })).toThrow(OptionError);
    await shards.close();
    await again.shards.close();
  });
});
