import { describe, expect, it } from "vitest";
import { ModelError } from "../models/eval-model.js";
import type { Clock } from "./clock.js";
import { AdaptiveConcurrency } from "./concurrency.js";
import { costOf, noUsage, SpendingGuard } from "./cost.js";
import { canonicalJson, promptSha256, requestKey } from "./identity.js";
import { RateLimits } from "./rate-limits.js";
import { AttemptsError, withRetries } from "./retry.js";

function steppedClock(random = 0.5): Clock & { slept: number[] } {
  let time = 0;
  const slept: number[] = [];
  return {
    slept,
    now: () => time,
    random: () => random,
    async sleep(ms, signal) {
      signal?.throwIfAborted();
      slept.push(ms);
      time += ms;
    },
  };
}

describe("AdaptiveConcurrency", () => {
  it("grows by one after a window of successes, up to its most", async () => {
    const concurrency = new AdaptiveConcurrency({ start: 2, max: 4 });
    const grown: number[] = [];
    for (let i = 0; i < 20; i++) {
      const slot = await concurrency.acquire();
      slot.succeeded();
      slot.release();
      grown.push(concurrency.limit);
    }
    // 2 successes at a limit of 2, then 3 at 3; from then on the most.
    expect(grown.slice(0, 6)).toEqual([2, 3, 3, 3, 4, 4]);
    expect(Math.max(...grown)).toBe(4);
  });

  it("halves once for all requests that were under way together, and never below one", async () => {
    const concurrency = new AdaptiveConcurrency({ start: 8 });
    const slots = await Promise.all(Array.from({ length: 8 }, () => concurrency.acquire()));
    for (const slot of slots) slot.overloaded();
    expect(concurrency.limit).toBe(4);
    for (const slot of slots) slot.release();
    for (let i = 0; i < 5; i++) {
      const slot = await concurrency.acquire();
      slot.overloaded();
      slot.release();
    }
    expect(concurrency.limit).toBe(1);
  });

  it("lets no more than the limit through, in order", async () => {
    const concurrency = new AdaptiveConcurrency({ start: 2, max: 2 });
    const first = [await concurrency.acquire(), await concurrency.acquire()];
    const order: number[] = [];
    const waiting = [0, 1, 2].map(async (i) => {
      const slot = await concurrency.acquire();
      order.push(i);
      return slot;
    });
    await Promise.resolve();
    expect(concurrency.active).toBe(2);
    first[0]!.release();
    (await waiting[0])!.release();
    (await waiting[1])!.release();
    await waiting[2];
    expect(order).toEqual([0, 1, 2]);
    expect(() => new AdaptiveConcurrency({ max: 0 })).toThrow(/max/);
  });
});

describe("RateLimits", () => {
  it("lets a minute's worth through at once, then as fast as it fills", async () => {
    const clock = steppedClock();
    const limits = new RateLimits({ requestsPerMinute: 3 }, clock);
    for (let i = 0; i < 5; i++) await limits.admit(1);
    expect(clock.slept).toEqual([20_000, 20_000]);
  });

  it("counts tokens, and lets through what is larger than the bucket when it is full", async () => {
    const clock = steppedClock();
    const limits = new RateLimits({ tokensPerMinute: 600 }, clock);
    await limits.admit(900);
    await limits.admit(100);
    // 300 tokens of debt and 100 to have, at ten a second.
    expect(clock.slept).toEqual([40_000]);
    expect(() => new RateLimits({ tokensPerMinute: 0 }, clock)).toThrow(/tokensPerMinute/);
  });

  it("pauses as long as the endpoint says that nothing is left", async () => {
    const clock = steppedClock();
    const limits = new RateLimits({}, clock);
    limits.observe({ remainingRequests: 1, resetRequestsMs: 9000, remainingTokens: 0, resetTokensMs: 1234 });
    await limits.admit(1);
    expect(clock.slept).toEqual([1234]);
  });
});

describe("withRetries", () => {
  const failing = (kinds: ("retry" | "error")[], facts = {}) => {
    let i = 0;
    return async () => {
      const kind = kinds[i++];
      if (kind === undefined) return "yes";
      throw new ModelError(kind, `failure ${i}`, facts);
    };
  };

  it("waits a share of a limit that doubles, up to the most", async () => {
    const clock = steppedClock(0.25);
    const options = { maxRetries: 8, baseMs: 1000, maxMs: 10_000 };
    const result = await withRetries(failing(Array(6).fill("retry")), options, clock, () => {});
    expect(result).toEqual({ value: "yes", attempts: 7 });
    expect(clock.slept).toEqual([250, 500, 1000, 2000, 2500, 2500]);
  });

  it("waits what the endpoint asks, gives up after its tries, and doesn't retry what can't change", async () => {
    const clock = steppedClock();
    const attempt = failing(["retry", "retry", "retry"], { retryAfterMs: 77 });
    const error = await withRetries(attempt, { maxRetries: 1 }, clock, () => {}).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(AttemptsError);
    expect(error).toMatchObject({ attempts: 2, message: "failure 2" });
    expect(clock.slept).toEqual([77]);
    const once = await withRetries(failing(["error"]), {}, clock, () => {}).catch((thrown) => thrown);
    expect(once).toMatchObject({ attempts: 1 });
    await expect(withRetries(failing([]), { maxRetries: -1 }, clock, () => {})).rejects.toThrow(/maxRetries/);
  });
});

describe("costOf and SpendingGuard", () => {
  it("prices cached tokens apart", () => {
    const usage = { promptTokens: 1000, completionTokens: 100, cachedTokens: 400 };
    // (600 · 2 + 400 · 0.5 + 100 · 10) / 10⁶
    expect(costOf(usage, { input: 2, output: 10, cachedInput: 0.5 })).toBeCloseTo(0.0024, 15);
    expect(costOf(usage, { input: 2, output: 10 })).toBeCloseTo(0.003, 15);
  });

  it("waits for the real price of what is under way before it says no", async () => {
    const guard = new SpendingGuard({ maxTokens: 100 }, noUsage());
    const first = await guard.admit({ cost: 0, tokens: 70 });
    const second = guard.admit({ cost: 0, tokens: 60 });
    const later = new Promise((done) => setImmediate(done, "it waits"));
    expect(await Promise.race([second, later])).toBe("it waits");
    first!({ cost: 0, tokens: 20 });
    const settle = await second;
    expect(settle).toBeTypeOf("function");
    settle!({ cost: 0, tokens: 60 });
    expect(await guard.admit({ cost: 0, tokens: 21 })).toBeUndefined();
    expect(await guard.admit({ cost: 0, tokens: 20 })).toBeTypeOf("function");
  });
});

describe("identity", () => {
  it("doesn't depend on the order of keys, nor on keys without a value", () => {
    expect(canonicalJson({ b: [1, { y: null, x: "é" }], a: undefined, A: true })).toBe(
      '{"A":true,"b":[1,{"x":"é","y":null}]}',
    );
    const identity = { model: "m", promptSha256: "s", maxTokens: 5, temperature: 0, trial: 0 };
    expect(requestKey({ ...identity, seed: undefined })).toBe(requestKey(identity));
    for (const change of [
      { trial: 1 },
      { temperature: 1 },
      { maxTokens: 6 },
      { model: "n" },
      { fingerprint: { url: "u" } },
    ]) {
      expect(requestKey({ ...identity, ...change })).not.toBe(requestKey(identity));
    }
  });

  it("tells apart messages that read the same together", () => {
    const hash = (...contents: string[]) =>
      promptSha256(contents.map((content) => ({ role: "user" as const, content })));
    expect(hash("ab", "c")).not.toBe(hash("a", "bc"));
    expect(hash("abc")).toMatch(/^[0-9a-f]{64}$/);
  });
});
