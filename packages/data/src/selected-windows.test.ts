import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, OptionError } from "@llmeff/native/errors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Batch } from "./batch.js";
import { SelectedWindows, windowsAt } from "./selected-windows.js";
import { selectTop } from "./selection.js";
import { ShardWindows } from "./shard-windows.js";
import { openTokenShards, type TokenShards, writeTokenShards } from "./token-shards.js";

const tokens = Int32Array.from({ length: 100 }, (_, i) => i);
const starts = [3, 40, 7, 95, 20];
const sizes = { seqLen: 4, batchSize: 2 };

describe("windowsAt", () => {
  it("gives each window once, in the order of the places", () => {
    const batches = [...windowsAt(tokens, starts, sizes)];
    expect(batches.map(({ batchSize }) => batchSize)).toEqual([2, 2, 1]);
    expect(batches.flatMap(({ origins }) => [...origins!])).toEqual(starts);
    expect([...batches[2]!.tokens, ...batches[2]!.targets]).toEqual([20, 21, 22, 23, 21, 22, 23, 24]);
  });

  it("refuses windows outside the text", () => {
    expect(() => windowsAt(tokens, [96], sizes)).toThrow(
      "[windowsAt] a window of 5 tokens must begin in 0..95; received 96.",
    );
    expect(() => windowsAt(tokens, [-1], sizes)).toThrow(OptionError);
    expect([...windowsAt(tokens, [], sizes)]).toEqual([]);
  });
});

describe("SelectedWindows", () => {
  it("visits each window once an epoch, and resumes", () => {
    const data = new SelectedWindows(tokens, starts, { ...sizes, seed: 2 });
    const seen = Array.from({ length: 5 }, () => [...data.next().origins!]).flat();
    expect(seen.slice(0, 5).toSorted((a, b) => a - b)).toEqual(starts.toSorted((a, b) => a - b));
    expect(seen.slice(5).toSorted((a, b) => a - b)).toEqual(starts.toSorted((a, b) => a - b));
    const again = new SelectedWindows(tokens, starts, { ...sizes, seed: 2 });
    again.restore(JSON.parse(JSON.stringify(data.state())));
    for (let i = 0; i < 6; i++) expect(again.next()).toEqual(data.next());
  });

  it("refuses no places, and states of another selection", () => {
    expect(() => new SelectedWindows(tokens, [], sizes)).toThrow(OptionError);
    const data = new SelectedWindows(tokens, starts, sizes);
    expect(() => data.restore(new SelectedWindows(tokens, [3], sizes).state())).toThrow(FormatError);
    expect(() => data.restore({ ...data.state(), index: 6 })).toThrow("beyond the 5 windows");
  });
});

describe("over token shards", () => {
  let folder: string;
  let shards: TokenShards;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "llmeff-selected-"));
    const documents = Array.from({ length: 10 }, (_, d) => tokens.subarray(10 * d, 10 * d + 10));
    const paths = await writeTokenShards(folder, documents, { vocabSize: 100, maxTokens: 30 });
    expect(paths.length).toBeGreaterThan(2);
    shards = await openTokenShards(paths);
  });
  afterAll(async () => {
    await shards.close();
    await rm(folder, { recursive: true });
  });

  it("candidates and selection are those of the same tokens in memory", async () => {
    const batches: Batch[] = [];
    for await (const batch of windowsAt(shards, starts, sizes)) batches.push(batch);
    expect(batches).toEqual([...windowsAt(tokens, starts, sizes)]);
    const [held, onDisk] = [tokens, shards].map((text) => new SelectedWindows(text, starts, { ...sizes, seed: 2 }));
    for (let i = 0; i < 9; i++) expect(await onDisk!.next()).toEqual(held!.next());
  });

  it("selects by scores of an epoch's windows, and resumes", async () => {
    const stream = new ShardWindows(shards, { ...sizes, seed: 1 });
    const candidates = stream.windowStarts(0);
    expect(Array.from((await stream.next()).origins!)).toEqual(Array.from(candidates.subarray(0, 2)));
    const scores = Array.from(candidates, (start) => start);
    const chosen = selectTop(scores, 3).map((i) => candidates[i]!);
    const data = new SelectedWindows(shards, chosen, { ...sizes, seed: 1 });
    const seen = [...(await data.next()).origins!, ...(await data.next()).origins!];
    expect(new Set(seen)).toEqual(new Set(candidates.toSorted().slice(-3)));
    const again = new SelectedWindows(shards, chosen, { ...sizes, seed: 1 });
    again.restore(JSON.parse(JSON.stringify(data.state())));
    for (let i = 0; i < 5; i++) expect(await again.next()).toEqual(await data.next());
    const inMemory = new SelectedWindows(tokens, chosen, { ...sizes, seed: 1 });
    expect(() => inMemory.restore(data.state())).toThrow(FormatError);
  });

  it("refuses windows outside the shards", () => {
    expect(() => new SelectedWindows(shards, [96], sizes)).toThrow("must begin in 0..95; received 96.");
    expect(() => windowsAt(shards, [0.5], sizes)).toThrow(OptionError);
  });
});
