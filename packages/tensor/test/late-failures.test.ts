/** Mistakes in values show when the work runs: the read tells them, with the place of the call, and nothing else is touched. */
import { describe, expect, it } from "vitest";
import type { Tensor } from "../src/index.js";
import * as t from "../src/index.js";

const ids = (...values: number[]) => t.tensor(Int32Array.from(values));

describe("failures that show when the work runs", () => {
  const table = t.ones([4, 2]);

  it.each([-1, 4, 2 ** 31 - 1, -(2 ** 31)])(
    "refuse token id %i at the read, with the caller in the stack",
    async (id) => {
      const bad = t.embedding(table, ids(0, id));
      await expect(bad.data()).rejects.toMatchObject({
        code: "ERR_INDEX",
        message: `[embedding] token id ${id} at position 1 is outside the vocabulary of 4`,
        stack: expect.stringMatching(/queued[\s\S]*late-failures\.test\.ts/),
      });
      expect(() => bad.dataSync()).toThrow(t.IndexOutOfRangeError);
    },
  );

  it.each(["crossEntropy", "linearCrossEntropy"] as const)(
    "refuse a target outside the vocabulary in %s",
    async (name) => {
      const { value, grads } = t.valueAndGrad(
        (w: Tensor) =>
          name === "crossEntropy"
            ? t.crossEntropy(w, ids(1, 2, 3, 2))
            : t.linearCrossEntropy(t.ones([4, 2]), w, ids(4, 2, 3, 4)),
        t.ones([4, 2]),
      );
      for (const read of [value, grads]) {
        await expect(read.item().catch(() => read.data())).rejects.toMatchObject({
          code: "ERR_INDEX",
          stack: expect.stringMatching(/queued[\s\S]*late-failures\.test\.ts/),
        });
      }
    },
  );

  it("reach everything that was computed from them, and nothing else", async () => {
    const bad = t.embedding(table, ids(9, 0));
    const good = t.ones([2, 2]);
    const derived = [
      bad.add(1),
      bad.sum(),
      t.concat([bad, good]),
      t.concat([good, bad]),
      bad.slice(0, 1).T,
      t.where(t.equal(good, 1), bad, good),
    ];
    for (const x of derived) await expect(x.data()).rejects.toThrow(t.IndexOutOfRangeError);
    expect(await good.add(1).data()).toEqual(Float32Array.of(2, 2, 2, 2));
  });

  it("leave what would have been updated in place as it was", async () => {
    const { engine, UpdateRule } = await import("@llmeff/native");
    const params = t.tensor([1, 2]);
    const state = [t.zeros([2]), t.zeros([2])];
    const badGrads = t.embedding(table, ids(77)).reshape([2]);
    engine().op.optimizerStep(
      UpdateRule.adam,
      [params.handle],
      [],
      [badGrads.handle],
      state.map(({ handle }) => handle),
      [0, 1, 0.9, 0.1, 0.99, 0.01, 10, 1e-8, 1, 0],
      null,
    );
    expect(await params.data()).toEqual(Float32Array.of(1, 2));
    expect(await state[0]!.data()).toEqual(Float32Array.of(0, 0));
    await expect(badGrads.data()).rejects.toThrow("token id 77");
  });

  it("are told by sync, the oldest first and each once", async () => {
    t.embedding(table, ids(10));
    t.embedding(table, ids(11));
    await expect(t.sync()).rejects.toThrow("token id 10");
    await expect(t.sync()).resolves.toBeUndefined();
  });

  it("go away when the memory is written again", async () => {
    const target = t.zeros([1, 2]);
    t.copyInto(target, t.embedding(table, ids(5)));
    await expect(target.data()).rejects.toThrow(t.IndexOutOfRangeError);
    t.fill(target, 3);
    expect(await target.data()).toEqual(Float32Array.of(3, 3));
  });

  it("are not forgotten when a part of the memory is written", async () => {
    const target = t.zeros([2, 2]);
    t.copyInto(target.slice(0, 0, 1), t.embedding(table, ids(5)));
    t.copyInto(target.slice(0, 1, 2), t.ones([1, 2]));
    await expect(target.data()).rejects.toThrow(t.IndexOutOfRangeError);
  });
});
