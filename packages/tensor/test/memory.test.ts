import { engine } from "@llmeff/native";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as t from "../src/index.js";
import { keep, memory, scope, sync, type Tensor } from "../src/index.js";
import { bundle, discard, runNode } from "./child.js";
import { sample, sampleIds } from "./numbers.js";
import { opCases } from "./op-cases.js";

/** A small model with every kind of layer. */
function loss(p: Record<"table" | "wq" | "wo" | "norm", Tensor>, tokens: Tensor, targets: Tensor): Tensor {
  const [B, T] = tokens.shape as [number, number];
  const x = t.embedding(p.table, tokens);
  const { cos, sin } = t.ropeTables(T, 4);
  const q = t.rope(t.linear(t.rmsNorm(x, p.norm), p.wq).reshape([B, T, 2, 4]), cos, sin);
  const mixed = t.attention(q, q, q).add(t.simplicialAttention(q, q, q, q, q, { w1: 4, w2: 2 }));
  const y = x.add(t.linear(t.swiglu(mixed, mixed).reshape([B, T, 8]), p.wo));
  return t.linearCrossEntropy(y, p.table, targets);
}

const parameters = () => ({
  table: sample([11, 8], 1, { dtype: "float32" }),
  wq: sample([8, 8], 2, { dtype: "float32" }),
  wo: sample([8, 8], 3, { dtype: "float32" }),
  norm: sample([8], 4, { dtype: "float32" }),
});

describe("memory", () => {
  it("is the same after every step of training, without new blocks from the system", async () => {
    const params = parameters();
    const [tokens, targets] = [sampleIds([2, 9], 5, 11), sampleIds([2, 9], 6, 11)];
    const seen: { tensors: number; liveBytes: number; systemAllocations: number }[] = [];
    for (let step = 0; step < 100; step++) {
      const { value, grads } = t.valueAndGrad((p: typeof params) => loss(p, tokens, targets), params);
      scope(() => {
        for (const [name, w] of Object.entries(params)) t.copyInto(w, w.sub(grads[name as "wq"].mul(0.01)));
      });
      for (const x of [value, ...Object.values(grads)]) x.dispose();
      await sync();
      const { tensors, liveBytes } = memory();
      seen.push({ tensors, liveBytes, systemAllocations: engine().memory(tokens.deviceNumber).systemAllocations });
    }
    expect(new Set(seen.slice(2).map((s) => JSON.stringify(s))).size).toBe(1);
  });

  it.each(opCases.map((c) => [c.name, c] as const))("holds nothing of %s but its result", (_name, opCase) => {
    scope(() => {
      const inputs = opCase.inputs.map((shape, i) => sample(shape, i + 1, { low: 0.25, high: 1 }));
      const before = memory().tensors;
      const out = scope(() => opCase.compute(...inputs));
      expect(memory().tensors - before).toBeLessThanOrEqual(1); // a result may be an input
      if (!inputs.includes(out)) out.dispose();
      expect(memory().tensors).toBe(before);
    });
  });

  const ids = t.tensor(Int32Array.of(0, 1));
  const x = t.ones([2, 2]);
  const calls: [string, () => Tensor][] = [
    ["add with a number", () => x.add(1)],
    ["equal with a number", () => t.equal(x, 1)],
    ["sum", () => x.sum()],
    ["max of an axis", () => x.max({ axis: 0 })],
    ["matmul of vectors", () => t.matmul(x.slice(0, 0, 1), x).slice(0, 0, 1)],
    ["linear", () => t.linear(x, x)],
    ["crossEntropy", () => t.crossEntropy(x, ids)],
    ["linearCrossEntropy", () => t.linearCrossEntropy(x, x, ids)],
    ["globalNorm of views", () => t.globalNorm([x.T, x])],
    ["softmax of a view", () => t.softmax(x.T)],
    ["concat", () => t.concat([x, x])],
    ["where", () => t.where(t.equal(x, 1), x, x)],
    ["randomNormal in bfloat16", () => t.randomNormal({ seed: 1 }, [4], { dtype: "bfloat16" })],
    ["gelu", () => t.gelu(x)],
  ];
  it.each(calls.filter(([name]) => !/view|where|vectors/.test(name)))(
    "holds only the result of %s outside of any scope",
    (_name, call) => {
      const before = memory().tensors;
      const out = call();
      expect(memory().tensors).toBe(before + 1);
      out.dispose();
      expect(memory().tensors).toBe(before);
    },
  );

  it("counts what is live, its peak, and what is kept for reuse", () => {
    t.emptyCache();
    t.resetPeakMemory();
    const { liveBytes, cachedBytes } = memory();
    expect(cachedBytes).toBe(0);
    const big = t.zeros([1 << 18]);
    expect(memory().liveBytes - liveBytes).toBe(1 << 20);
    big.dispose();
    expect(memory().liveBytes).toBe(liveBytes);
    expect(memory().peakBytes).toBeGreaterThanOrEqual(liveBytes + (1 << 20));
    expect(memory().cachedBytes).toBe(1 << 20);
  });
});

describe("scope", () => {
  it("frees what was made in it but what it returns, wherever that is, and what is kept", () => {
    const before = memory().tensors;
    let kept: Tensor | undefined;
    let lost: Tensor | undefined;
    const result = scope(() => {
      kept = keep(t.ones([1]));
      lost = t.ones([1]);
      return { a: [t.ones([1]), { b: t.ones([1]) }], n: 5 };
    });
    expect(lost?.disposed).toBe(true);
    expect(memory().tensors).toBe(before + 3);
    for (const tensor of [...t.tensorsOf(result), kept!]) tensor.dispose();
    expect(memory().tensors).toBe(before);
  });

  it("hands its results to the enclosing scope", () => {
    let inner: Tensor | undefined;
    scope(() => {
      inner = scope(() => t.ones([1]));
      expect(inner.disposed).toBe(false);
    });
    expect(inner?.disposed).toBe(true);
  });

  it("frees everything when its function throws, also in the middle of a gradient", () => {
    const w = t.ones([4]);
    const before = memory();
    const fail = () => {
      throw new TypeError("mine");
    };
    expect(() => scope(() => [t.ones([100]), fail()])).toThrow("mine");
    expect(() => t.grad((p: Tensor) => scope(() => p.exp().add(fail())), w)).toThrow("mine");
    const broken = t.defineOp<undefined>({
      name: "broken",
      forward(context, [x]) {
        context.save(x!, x!.mul(2));
        return x!.mul(3);
      },
      backward: fail,
    });
    expect(() => t.grad((p: Tensor) => broken([p.exp()], undefined).square().sum(), w)).toThrow("mine");
    expect(memory().tensors).toBe(before.tensors);
    expect(memory().liveBytes).toBe(before.liveBytes);
    expect([...t.grad((p: Tensor) => p.square().sum(), w).dataSync()]).toEqual([2, 2, 2, 2]);
  });

  it("forgets what is disposed in it", () => {
    scope(() => {
      const before = memory().tensors;
      const kept = [t.ones([1]), t.ones([1]), t.ones([1])];
      for (let i = 0; i < 100; i++) {
        const x = t.ones([1]);
        if (i % 3 === 0) kept.push(x);
        else x.dispose();
        if (i % 5 === 0) kept.shift()?.dispose();
      }
      expect(memory().tensors).toBe(before + kept.length);
      for (const x of kept) expect(x.disposed).toBe(false);
    });
    // The same with results that outlive the scope.
    const results = scope(() => {
      const [a, b, c] = [t.ones([1]), t.ones([1]), t.ones([1])];
      a.dispose();
      return [c, b, c];
    });
    expect(results.map((x) => x.disposed)).toEqual([false, false, false]);
    for (const x of results) x.dispose();
  });

  it("may be left by using", () => {
    const before = memory().tensors;
    {
      using a = t.ones([3]);
      using b = a.add(1);
      expect(b.dataSync()[0]).toBe(2);
    }
    expect(memory().tensors).toBe(before);
  });
});

describe("views", () => {
  it("keep their memory alive after the tensor they are of", () => {
    const { liveBytes } = memory();
    const base = t.tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
    const view = base.T.slice(0, 1, 3);
    base.dispose();
    t.full([6], 9).dispose(); // would take the block if it were free
    expect([...view.dataSync()]).toEqual([2, 5, 3, 6]);
    expect(memory().liveBytes).toBeGreaterThan(liveBytes);
  });

  it("see changes in place of what they are of", () => {
    const base = t.zeros([2, 2]);
    t.fill(base.slice(0, 1, 2), 5);
    expect([...base.T.dataSync()]).toEqual([0, 5, 0, 5]);
  });
});

describe("gradients", () => {
  it("share no memory with each other, the parameters or the loss", () => {
    const params = { a: t.tensor([1, 2]), b: t.tensor([3, 4]), c: t.tensor([5, 6]), d: t.tensor([7]) };
    const { value, grads } = t.valueAndGrad(
      (p: typeof params) =>
        p.a
          .add(p.b)
          .sum()
          .add(t.concat([p.a, p.c]).sum())
          .add(p.d.reshape([])),
      params,
    );
    const expected = { a: [2, 2], b: [1, 1], c: [1, 1], d: [1] };
    for (const name of ["a", "b", "c", "d"] as const) {
      for (const other of ["a", "b", "c", "d"] as const)
        expect([...grads[other].dataSync()], other).toEqual(expected[other]);
      t.fill(grads[name], -1);
      expected[name] = expected[name].map(() => -1);
    }
    expect([...params.a.dataSync(), ...params.d.dataSync()]).toEqual([1, 2, 7]);
    expect(value.itemSync()).toBe(1 + 2 + 3 + 4 + 1 + 2 + 5 + 6 + 7);
  });

  it("are those of the values at the call when parameters change later", () => {
    const w = t.tensor([2]);
    const { grads } = t.valueAndGrad((p: Tensor) => p.square().sum(), w);
    t.fill(w, 100);
    expect(grads.itemSync()).toBe(4);
  });
});

describe("reads", () => {
  it("give the values as of the call, whatever is queued afterwards", async () => {
    const x = t.zeros([1000]);
    const first = x.data();
    t.fill(x, 1);
    const second = x.data();
    x.dispose();
    expect([(await first)[999], (await second)[999]]).toEqual([0, 1]);
  });

  it("copy what they are given: later changes of the array don't matter", () => {
    const source = new Float32Array([1, 2, 3]);
    const x = t.tensor(source);
    source.fill(9);
    expect([...x.dataSync()]).toEqual([1, 2, 3]);
    expect([...t.tensor(new Float32Array(new SharedArrayBuffer(8))).dataSync()]).toEqual([0, 0]);
    expect([...t.tensor(new Float32Array([1, 2, 3, 4]).subarray(1, 3)).dataSync()]).toEqual([2, 3]);
  });
});

describe("forgotten tensors", () => {
  let program = "";
  beforeAll(async () => {
    program = await bundle("finalizer-program.ts");
  });

  afterAll(() => discard(program));

  it("are freed when they are collected, whether made outside of scopes, returned by one or kept", async () => {
    const { stdout, stderr, code } = await runNode(program, [], {}, ["--expose-gc"]);
    expect(code, stderr).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ made: 300, left: 0 });
  });
});
