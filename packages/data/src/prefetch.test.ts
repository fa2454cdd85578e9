import { setTimeout as sleep } from "node:timers/promises";
import { FormatError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import type { Batch, BatchSource, JsonObject } from "./batch.js";
import { prefetch } from "./prefetch.js";
import { TokenDataset } from "./token-dataset.js";

/** Counts 0, 1, 2 …, one number a batch, after a delay; can be told to fail at one number. */
class Counter implements BatchSource {
  at = 0;
  made = 0;
  failAt = -1;

  constructor(readonly delayMs = 0) {}

  async next(): Promise<Batch> {
    await sleep(this.delayMs);
    if (this.at === this.failAt) {
      this.failAt = -1;
      throw new Error("the disk is gone");
    }
    this.made += 1;
    return { tokens: Int32Array.of(this.at++), targets: Int32Array.of(0), batchSize: 1, seqLen: 1 };
  }

  state(): JsonObject {
    return { at: this.at };
  }

  restore(state: JsonObject): void {
    if (typeof state.at !== "number") throw new FormatError("[Counter] bad state");
    this.at = state.at;
  }
}

async function take(source: BatchSource, count: number): Promise<number[]> {
  const numbers: number[] = [];
  for (let i = 0; i < count; i++) numbers.push((await source.next()).tokens[0]!);
  return numbers;
}

describe("prefetch", () => {
  it("gives the batches of the source in order, also to calls that don't wait for each other", async () => {
    const source = prefetch(new Counter(), { depth: 3 });
    expect(await take(source, 5)).toEqual([0, 1, 2, 3, 4]);
    const together = await Promise.all([source.next(), source.next(), source.next(), source.next(), source.next()]);
    expect(together.map((batch) => batch.tokens[0])).toEqual([5, 6, 7, 8, 9]);
  });

  it("works ahead, by no more than the depth", async () => {
    const counter = new Counter();
    const source = prefetch(counter, { depth: 3 });
    await sleep(20);
    expect(counter.made).toBe(0);
    await take(source, 1);
    await vi.waitFor(() => expect(counter.made).toBe(4), { timeout: 30_000 });
    await sleep(50);
    expect(counter.made).toBe(4);
    expect([counter.at, source.state()]).toEqual([4, { at: 1 }]);
  });

  it("reports the state of what was consumed, and resumes from it", async () => {
    const tokens = Int32Array.from({ length: 60 }, (_, i) => i);
    const make = () => new TokenDataset(tokens, { seqLen: 4, batchSize: 3, seed: 2 });
    await fc.assert(
      fc.asyncProperty(fc.nat(12), fc.integer({ min: 1, max: 4 }), async (steps, depth) => {
        const plain = make();
        const ahead = prefetch(make(), { depth });
        for (let i = 0; i < steps; i++) {
          // Long enough for the queue to fill up.
          await sleep(2);
          expect(ahead.state()).toEqual(plain.state());
          expect(await ahead.next()).toEqual(plain.next());
        }
        const resumed = prefetch(make(), { depth });
        resumed.restore(ahead.state());
        for (let i = 0; i < 4; i++) expect(await resumed.next()).toEqual(plain.next());
      }),
      { numRuns: 20 },
    );
  });

  it("goes back to a state while batches are waiting and while one is being made", async () => {
    const source = prefetch(new Counter(5), { depth: 2 });
    await take(source, 3);
    const state = source.state();
    await take(source, 2);
    await sleep(40);
    source.restore(state);
    expect(await take(source, 2)).toEqual([3, 4]);
    const pending = source.next();
    source.restore(state);
    expect(source.state()).toEqual({ at: 3 });
    expect((await pending).tokens[0]).toBe(3);
    expect(await take(source, 2)).toEqual([4, 5]);
  });

  it("delivers a failure in its turn, and goes on when asked again", async () => {
    const counter = new Counter();
    counter.failAt = 2;
    const source = prefetch(counter, { depth: 4 });
    expect(await take(source, 2)).toEqual([0, 1]);
    await sleep(30);
    // Nothing was tried again behind the failure, which nobody has seen yet.
    expect(counter.made).toBe(2);
    await expect(source.next()).rejects.toThrow("the disk is gone");
    expect(source.state()).toEqual({ at: 2 });
    expect(await take(source, 2)).toEqual([2, 3]);
  });

  it("lets calls behind a failure have their batches", async () => {
    const counter = new Counter();
    counter.failAt = 0;
    const source = prefetch(counter, { depth: 1 });
    const results = await Promise.allSettled([source.next(), source.next(), source.next()]);
    expect(results.map((result) => result.status)).toEqual(["rejected", "fulfilled", "fulfilled"]);
  });

  it("reports a bad state, at once or with the next batch, and stays where it was", async () => {
    const source = prefetch(new Counter(5));
    expect(() => source.restore({ at: "x" })).toThrow(FormatError);
    const pending = source.next();
    source.restore({ at: "x" });
    await expect(pending).rejects.toThrow(FormatError);
    expect(source.state()).toEqual({ at: 0 });
    expect(await take(source, 2)).toEqual([0, 1]);
  });

  it("stops at the signal, rejecting those who wait and those who come later", async () => {
    const controller = new AbortController();
    const counter = new Counter(10);
    const source = prefetch(counter, { signal: controller.signal, depth: 5 });
    const [first] = await take(source, 1);
    const pending = [source.next(), source.next()];
    controller.abort(new Error("enough"));
    for (const waiting of [...pending, source.next()]) await expect(waiting).rejects.toThrow("enough");
    expect(first).toBe(0);
    expect(source.state()).toEqual({ at: 1 });
    await sleep(40);
    expect(counter.made).toBeLessThanOrEqual(2);
  });

  it("leaves the event loop to others while a source without waiting is read", async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const source = prefetch(new TokenDataset(new Int32Array(5000), { seqLen: 64, batchSize: 64 }), { depth: 2 });
    for (let i = 0; i < 300; i++) await source.next();
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(0);
  });

  it("refuses a depth below one", () => {
    expect(() => prefetch(new Counter(), { depth: 0 })).toThrow(OptionError);
  });
});
