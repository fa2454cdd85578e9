/** Captured steps beside the same steps as they are: same bits, same failures, nothing left behind. */
import { describe, expect, it } from "vitest";
import { collectGarbage } from "../../../test/garbage.js";
import * as t from "../src/index.js";
import { captureStep, hostEffect, hostNumber, memory, scope, sync, type Tensor } from "../src/index.js";
import { sample } from "./numbers.js";

type Params = Record<"table" | "w" | "norm", Tensor>;

const vocabulary = 11;
const parameters = (): Params => ({
  table: sample([vocabulary, 8], 1, { dtype: "float32" }),
  w: sample([8, 8], 2, { dtype: "float32" }),
  norm: sample([8], 3, { dtype: "float32" }),
});

function loss(p: Params, tokens: Tensor, targets: Tensor): Tensor {
  const x = t.embedding(p.table, tokens);
  const y = x.add(t.checkpoint((h: Tensor) => t.gelu(t.linear(t.rmsNorm(h, p.norm), p.w)), x));
  return t.linearCrossEntropy(y, p.table, targets);
}

/** One step of gradient descent in place. */
function descend(params: Params, tokens: Tensor, targets: Tensor): Tensor {
  const { value, grads } = t.valueAndGrad((p: Params) => loss(p, tokens, targets), params);
  for (const name of Object.keys(params) as (keyof Params)[])
    t.copyInto(params[name], params[name].sub(grads[name].mul(0.1)));
  return value;
}

const shape = [2, 5];
const form = { shape, dtype: "int32" } as const;
const idsAt = (step: number) => Int32Array.from({ length: 10 }, (_, i) => (i * i + 3 * step) % vocabulary);
const bits = (params: Params) => Object.values(params).map((p) => Array.from(p.dataSync()));

const batchAt = (step: number) => ({ tokens: idsAt(step), targets: idsAt(step + 1) });
const capturedDescent = (params: Params) =>
  captureStep(({ tokens, targets }) => descend(params, tokens, targets), { inputs: { tokens: form, targets: form } });

describe("captureStep", () => {
  it("trains with the bits of uncaptured steps, and its results may be read later", async () => {
    const [plain, captured] = [parameters(), parameters()];
    using step = capturedDescent(captured);
    const [wanted, losses]: [number[], Tensor[]] = [[], []];
    for (let i = 0; i < 10; i++) {
      const { tokens, targets } = batchAt(i);
      wanted.push(scope(() => descend(plain, t.tensor(tokens, { shape }), t.tensor(targets, { shape })).itemSync()));
      // Typed arrays and tensors alike.
      losses.push(
        i % 2 === 0 ? step({ tokens, targets }) : scope(() => step({ tokens: t.tensor(tokens, { shape }), targets })),
      );
      expect(step.mode).toBe(i < 2 ? "eager" : "captured");
    }
    expect(await Promise.all(losses.map((value) => value.item()))).toEqual(wanted);
    expect(wanted[9]).toBeLessThan(wanted[0]!);
    expect(bits(captured)).toEqual(bits(plain));
  });

  it("returns trees of tensors in the form that the step gives them", () => {
    const x = t.tensor([1, 2, 3]);
    using step = captureStep(
      ({ y }) => ({ sums: [x.add(y).sum(), y.mul(2)], x: y, note: "as it was", none: undefined }),
      { inputs: { y: x }, warmup: 1 },
    );
    for (let i = 0; i < 4; i++) {
      const { sums, x: same, note, none } = step({ y: Float32Array.of(i, 0, 1) });
      expect([sums[0]!.itemSync(), ...sums[1]!.dataSync()]).toEqual([7 + i, 2 * i, 0, 2]);
      expect([...same.dataSync(), note, none]).toEqual([i, 0, 1, "as it was", undefined]);
      same.dispose(); // a copy, never the step's own memory
    }
  });

  it("gives operations the numbers and does the effects of each step", () => {
    const x = t.ones([64]);
    let at = 0;
    const seen: number[] = [];
    using step = captureStep(
      () => {
        const dropped = t.dropout(x, 0.5, { seed: 3, stream: hostNumber(() => at) });
        const noise = t.randomUniform({ seed: hostNumber(() => 10 + at), stream: 1 }, [8]);
        const scaled = x.mul(
          t.full(
            [],
            hostNumber(() => 1 / (1 + at)),
          ),
        );
        hostEffect(() => seen.push(at));
        return [dropped, noise, scaled] as const;
      },
      { inputs: {}, warmup: 1 },
    );
    for (at = 0; at < 5; at++) {
      const [dropped, noise, scaled] = step({});
      expect(dropped.dataSync()).toEqual(t.dropout(x, 0.5, { seed: 3, stream: at }).dataSync());
      expect(noise.dataSync()).toEqual(t.randomUniform({ seed: 10 + at, stream: 1 }, [8]).dataSync());
      expect(scaled.dataSync()).toEqual(x.mul(1 / (1 + at)).dataSync());
    }
    expect(seen).toEqual([0, 1, 2, 3, 4]);
  });

  it("does nothing of a replay whose numbers can't be had", () => {
    let rate = 1;
    let effects = 0;
    const x = t.tensor([1, 2]);
    using step = captureStep(
      () => {
        const lr = hostNumber(() => {
          if (rate < 0) throw new RangeError("no rate");
          return rate;
        });
        t.copyInto(x, x.sub(t.full([], lr)));
        t.dropout(x, 0.5, { seed: 1, stream: hostNumber(() => rate) });
        hostEffect(() => effects++);
        return x;
      },
      { inputs: {} },
    );
    for (let i = 0; i < 4; i++) step({});
    rate = -1;
    expect(() => step({})).toThrow("no rate");
    rate = 0.5;
    expect(() => step({})).toThrow("[dropout] stream must be an integer; received 0.5.");
    expect(Array.from(x.dataSync())).toEqual([-3, -2]);
    rate = 2;
    expect(Array.from(step({}).dataSync())).toEqual([-5, -4]);
    expect(effects).toBe(5);
  });

  const x = t.ones([2]);
  const refused: [string, () => unknown][] = [
    ["item", () => x.sum().item()],
    ["data", () => x.data()],
    ["dataSync", () => x.dataSync()],
    ["itemSync", () => x.sum().itemSync()],
    ["tensor", () => t.tensor([1, 2])],
    ["arange", () => t.arange(3)],
    ["sync", () => sync()],
    ["deviceTime", () => t.deviceTime()],
    ["profile", () => t.profile(() => x.add(1))],
    ["emptyCache", () => t.emptyCache()],
    ["dropout", () => t.dropout(x, 0.5, { seed: 1, stream: 2 })],
    ["randomNormal", () => t.randomNormal({ seed: 1 }, [2])],
  ];
  it.each(refused)("refuses %s at the call, and goes on without a capture", async (name, call) => {
    const [plain, captured] = [parameters(), parameters()];
    let calls = 0;
    using step = captureStep(
      ({ tokens, targets }) => {
        const value = descend(captured, tokens, targets);
        if (++calls !== 3) return value;
        try {
          call();
        } catch {
          // The capture fails though its step goes on.
        }
        return value;
      },
      { inputs: { tokens: form, targets: form } },
    );
    for (let i = 0; i < 5; i++) {
      if (i === 2) {
        await collectGarbage();
        const before = memory();
        expect(() => step(batchAt(i))).toThrow(
          expect.objectContaining({ code: "ERR_CAPTURE", message: expect.stringContaining(`[${name}]`) }),
        );
        await sync();
        expect(memory().tensors).toBe(before.tensors);
      }
      scope(() => {
        const value = step(batchAt(i));
        const { tokens, targets } = batchAt(i);
        const wanted = descend(plain, t.tensor(tokens, { shape }), t.tensor(targets, { shape }));
        expect(value.itemSync()).toBe(wanted.itemSync());
      });
      expect(step.mode).toBe("eager");
    }
    expect(bits(captured)).toEqual(bits(plain));
  });

  it("refuses a number of another capture, and arithmetic with one", () => {
    let kept: t.HostNumber = 0;
    using first = captureStep(
      () => {
        kept = hostNumber(() => 1);
        return t.full([1], kept);
      },
      { inputs: {}, warmup: 1 },
    );
    first({});
    first({});
    expect(() => t.full([1], kept)).toThrow("comes from another captured step");
    expect(() => (kept as number) * 2).toThrow("has no value yet");
  });

  it("refuses other inputs than those it was made for, before anything is done", () => {
    const params = parameters();
    using step = capturedDescent(params);
    for (let i = 0; i < 3; i++) step(batchAt(i)).dispose();
    const before = bits(params);
    const { tokens, targets } = batchAt(3);
    const float = new Float32Array(10);
    const wrong: [object, string][] = [
      [{ tokens }, "expected the inputs tokens, targets; received tokens."],
      [{ tokens, targets, more: tokens }, "received tokens, targets, more."],
      [{ tokens: tokens.slice(1), targets }, '"tokens" of shape [2, 5] has 10 elements; received 9 values.'],
      [{ tokens, targets: float }, '"targets" must be a tensor or a typed array of int32; received Float32Array.'],
      [{ tokens, targets: 3 }, "received 3."],
      [{ tokens: t.tensor(tokens), targets }, '"tokens" must have shape [2, 5]; received [10].'],
      [{ tokens: t.tensor(float, { shape }), targets }, '"tokens" must have dtype int32; received float32.'],
    ];
    for (const [inputs, message] of wrong) expect(() => step(inputs as never)).toThrow(message);
    expect(bits(params)).toEqual(before);
    expect(() => captureStep(() => x, { inputs: {}, warmup: 0 })).toThrow(
      "[captureStep] warmup must be an integer of at least 1; received 0.",
    );
    expect(() => captureStep(() => x, { inputs: null as never })).toThrow(
      "[captureStep] inputs must be tensors or forms by name",
    );
    expect(() => captureStep(3 as never, { inputs: {} })).toThrow("[captureStep] fn must be a function");
  });

  it("refuses promises, captured steps in steps and in losses", () => {
    using inner = captureStep(() => x.add(1), { inputs: {}, warmup: 1 });
    inner({});
    using outer = captureStep(() => inner({}), { inputs: {}, warmup: 1 });
    outer({});
    expect(() => outer({})).toThrow("can't be part of another one");
    expect(() => t.valueAndGrad((p: Tensor) => p.sum().add(inner({}).sum()), x)).toThrow("nor of a loss");
    let async = false;
    using late = captureStep(() => (async ? (Promise.resolve(x) as never) : x), { inputs: {}, warmup: 1 });
    late({});
    async = true;
    expect(() => late({})).toThrow("received one that returns a Promise");
  });

  it("tells of bad ids of each replay with the place of the call, and recovers with the next one", async () => {
    const params = parameters();
    using step = captureStep(
      ({ tokens, targets }) => {
        const { value, grads } = t.valueAndGrad((p: Params) => loss(p, tokens, targets), params);
        return { value, table: grads.table, apart: params.norm.add(1) };
      },
      { inputs: { tokens: form, targets: form } },
    );
    for (let i = 0; i < 3; i++) step(batchAt(i));
    const { tokens, targets } = batchAt(0);
    const bad = tokens.with(3, 15);
    const badTargets = targets.with(2, -7);
    for (const [inputs, message] of [
      [{ tokens: bad, targets }, "[embedding] token id 15 at position 3 is outside the vocabulary of 11"],
      [{ tokens, targets: badTargets }, "target -7 at row 2"],
    ] as const) {
      const failed = step(inputs);
      const good = step(batchAt(1)); // queued before the failure is known
      for (const result of [failed.value, failed.table]) {
        await expect(result.data()).rejects.toMatchObject({
          code: "ERR_INDEX",
          message: expect.stringContaining(message),
          stack: expect.stringMatching(/queued[\s\S]*capture-step\.test\.ts/),
        });
      }
      expect(Array.from(failed.apart.dataSync())).toEqual(Array.from(params.norm.add(1).dataSync()));
      expect(Number.isFinite(await good.value.item())).toBe(true);
    }
    const failed = step({ tokens: bad, targets });
    await expect(sync()).rejects.toThrow(t.IndexOutOfRangeError);
    await expect(failed.value.item()).rejects.toThrow(t.IndexOutOfRangeError);
    await sync();
  });

  it("fails with an input that failed, and recovers", async () => {
    using step = captureStep(({ rows }) => rows.sum(), { inputs: { rows: { shape: [2, 2] } }, warmup: 1 });
    const table = t.ones([4, 2]);
    const rows = (id: number) => t.embedding(table, t.tensor(Int32Array.of(0, id)));
    for (let i = 0; i < 3; i++) expect(step({ rows: rows(1) }).itemSync()).toBe(4);
    const failed = step({ rows: rows(9) });
    const good = step({ rows: rows(2) });
    await expect(failed.item()).rejects.toThrow("[embedding] token id 9");
    expect(await good.item()).toBe(4);
    await sync();
  });

  it("takes turns with another captured step and with eager work that needs more memory each time", () => {
    const [plain, captured] = [parameters(), parameters()];
    using step = capturedDescent(captured);
    using other = captureStep(({ a }) => t.matmul(a, a).add(a).sum(), { inputs: { a: { shape: [40, 40] } } });
    for (let i = 0; i < 8; i++) {
      scope(() => {
        const { tokens, targets } = batchAt(i);
        const value = step(batchAt(i));
        const a = t.randomNormal({ seed: i }, [40, 40]);
        const product = other({ a });
        // Reductions, products and sorts in scratch memory that grows.
        const n = 64 << i;
        const large = t.randomNormal({ seed: 5, stream: i }, [n]);
        const sorted = t.sort(large).values;
        expect(t.sum(sorted.sub(t.sort(large).values)).itemSync()).toBe(0);
        const wanted = descend(plain, t.tensor(tokens, { shape }), t.tensor(targets, { shape }));
        expect(value.itemSync()).toBe(wanted.itemSync());
        expect(product.itemSync()).toBe(t.matmul(a, a).add(a).sum().itemSync());
      });
      t.emptyCache();
    }
    expect(bits(captured)).toEqual(bits(plain));
  });

  it("holds the same memory over a hundred replays, and gives it back", async () => {
    const params = parameters();
    await sync();
    await collectGarbage();
    const before = memory();
    const step = capturedDescent(params);
    const seen = new Set<string>();
    for (let i = 0; i < 104; i++) {
      step(batchAt(i)).dispose();
      await sync();
      const { tensors, liveBytes } = memory();
      if (i >= 4) seen.add(`${tensors} ${liveBytes}`);
    }
    expect(seen.size).toBe(1);
    step.dispose();
    step.dispose();
    await sync();
    expect(memory().tensors).toBe(before.tensors);
    expect(memory().liveBytes).toBe(before.liveBytes);
    expect(() => step(batchAt(0))).toThrow(t.DisposedError);
  });

  it("keeps results of replays that it was disposed after", async () => {
    const step = captureStep(({ a }) => a.mul(2), { inputs: { a: { shape: [3] } }, warmup: 1 });
    step({ a: Float32Array.of(0, 0, 0) });
    const result = step({ a: Float32Array.of(1, 2, 3) });
    step.dispose();
    const others = Array.from({ length: 8 }, () => t.full([3], 9)); // where the step's memory was
    expect(Array.from(await result.data())).toEqual([2, 4, 6]);
    expect(others.every((other) => other.dataSync().every((x) => x === 9))).toBe(true);
  });

  it("keeps what the step updates alive when it is disposed outside", () => {
    const total = t.tensor([0]);
    using step = captureStep(({ a }) => t.copyInto(total, total.add(a)), { inputs: { a: { shape: [1] } }, warmup: 1 });
    step({ a: Float32Array.of(1) });
    step({ a: Float32Array.of(1) });
    total.dispose();
    const others = Array.from({ length: 8 }, () => t.full([1], 5));
    expect(step({ a: Float32Array.of(1) }).itemSync()).toBe(3);
    expect(others.every((other) => other.itemSync() === 5)).toBe(true);
  });

  it("is told apart by kind of kernel in a profile, with the same results", () => {
    using step = captureStep(({ a }) => t.matmul(a, a).add(1), { inputs: { a: { shape: [8, 8] } }, warmup: 1 });
    const a = sample([8, 8], 1, { dtype: "float32" });
    step({ a });
    const wanted = Array.from(step({ a }).dataSync());
    const { result, ops } = t.profile(() => step({ a }));
    expect(Array.from(result.dataSync())).toEqual(wanted);
    expect(ops.map(({ op }) => op)).toEqual(expect.arrayContaining(["matmul", "binary"]));
  });
});
