/** Where tensors are made and what happens to those of two devices; with GPUs that are the CPU under other names. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Tensor } from "../src/index.js";
import { useFakeGpus } from "./fake-gpu.js";

type Library = typeof import("../src/index.js");

const problem = "there is no library llmeff-cuda.so.";

/** The library as a process on a machine with these GPUs has it. */
async function libraryWith(names: readonly string[], environment?: string): Promise<Library> {
  useFakeGpus({ names, problem }, environment);
  return import("../src/index.js");
}

const warning = vi.spyOn(process, "emitWarning").mockImplementation(() => undefined);
beforeEach(() => void warning.mockClear());
afterEach(() => vi.unstubAllEnvs());

describe("on a machine without a GPU", () => {
  it("tensors are made on the CPU", async () => {
    const t = await libraryWith([]);
    expect(t.defaultDevice()).toBe("cpu");
    expect(t.zeros([2]).device).toBe("cpu");
    expect(t.tensor([1], { device: "cpu" }).device).toBe("cpu");
    expect(t.devices()).toMatchObject([{ device: "cpu", name: expect.any(String) }]);
  });

  it("a GPU is refused with the reason", async () => {
    const t = await libraryWith([]);
    const reason =
      '[tensor] device cuda:0 is not to be had: there is no library llmeff-cuda.so. Use device "cpu", or "auto" for a GPU where there is one.';
    expect(() => t.tensor([1], { device: "cuda" })).toThrow(reason);
    expect(() => t.tensor([1], { device: "cuda" })).toThrow(t.DeviceError);
    expect(() => t.setDefaultDevice("cuda:1")).toThrow(/^\[setDefaultDevice\] device cuda:1 is not to be had/);
    expect(() => t.ones([1]).to("cuda")).toThrow(t.DeviceError);
    expect(t.missingGpu()).toBe("there is no library llmeff-cuda.so.");
    expect(t.defaultDevice()).toBe("cpu");
  });

  it('"auto" is the CPU, with the reason told once', async () => {
    const t = await libraryWith([]);
    expect(t.zeros([1], { device: "auto" }).device).toBe("cpu");
    expect(t.resolveDevice("auto")).toBe("cpu");
    t.setDefaultDevice("auto");
    expect(warning).toHaveBeenCalledOnce();
    expect(warning.mock.lastCall).toEqual([
      expect.stringContaining("there is no library llmeff-cuda.so."),
      expect.objectContaining({ code: "LLMEFF_NO_GPU" }),
    ]);
  });

  it("LLMEFF_DEVICE=cuda makes that an error, LLMEFF_DEVICE=cpu silences it, auto doesn't", async () => {
    const required = await libraryWith([], "cuda");
    expect(() => required.zeros([1])).toThrow(/^\[LLMEFF_DEVICE\] device cuda:0 is not to be had: there is no library/);
    expect(() => required.zeros([1], { device: "auto" })).toThrow(required.DeviceError);
    expect(required.zeros([1], { device: "cpu" }).device).toBe("cpu");
    const refused = await libraryWith([], "cpu");
    expect(refused.zeros([1], { device: "auto" }).device).toBe("cpu");
    expect(warning).not.toHaveBeenCalled();
    const automatic = await libraryWith([], "auto");
    expect(automatic.zeros([1]).device).toBe("cpu");
    expect(warning).toHaveBeenCalledOnce();
  });

  it.each(["gpu", "cuda:", "cuda:-1", "cuda:1x", "CUDA", "", 0, null])("%j is no device", async (device) => {
    const t = await libraryWith([]);
    expect(() => t.zeros([1], { device: device as never })).toThrow(/^\[full\] device must be "cpu", "cuda"/);
    if (typeof device !== "string" || device === "") return;
    const other = await libraryWith([], device);
    expect(() => other.zeros([1])).toThrow(/^\[LLMEFF_DEVICE\] expected cpu, cuda/);
  });
});

describe("on a machine with GPUs", () => {
  const two = ["A", "B"];

  it('"cuda" and "auto" are the first; a number above the last is refused with what there is', async () => {
    const t = await libraryWith(two);
    expect(t.zeros([1]).device).toBe("cpu");
    expect(t.zeros([1], { device: "cuda" }).device).toBe("cuda:0");
    expect(t.zeros([1], { device: "cuda:0" }).device).toBe("cuda:0");
    expect(t.zeros([1], { device: "auto" }).device).toBe("cuda:0");
    expect(t.zeros([1], { device: "cuda:1" }).device).toBe("cuda:1");
    expect(() => t.zeros([1], { device: "cuda:2" })).toThrow(
      "[full] device cuda:2 is not to be had. On this machine there are: cpu, cuda:0 (A), cuda:1 (B).",
    );
    expect(t.devices().map(({ device }) => device)).toEqual(["cpu", "cuda:0", "cuda:1"]);
    expect(t.devices()[2]).toEqual({
      device: "cuda:1",
      name: "B",
      memoryBytes: 2 ** 30,
      capability: "9.0",
      driver: "13.0",
    });
    expect(t.missingGpu()).toBeUndefined();
    expect(warning).not.toHaveBeenCalled();
  });

  it("the default is what LLMEFF_DEVICE or setDefaultDevice says", async () => {
    const t = await libraryWith(two, "cuda:1");
    expect(t.zeros([1]).device).toBe("cuda:1");
    expect(t.zeros([1], { device: "auto" }).device).toBe("cuda:1");
    t.setDefaultDevice("cpu");
    expect(t.zeros([1]).device).toBe("cpu");
  });

  it("every function that makes a tensor takes a device", async () => {
    const t = await libraryWith(two);
    const on = { device: "cuda:1" } as const;
    const key = { seed: 1 };
    const made = [
      t.tensor([1, 2], on),
      t.tensor(Int32Array.of(1), on),
      t.full([2], 3, on),
      t.zeros([2], on),
      t.ones([2], on),
      t.randomNormal(key, [2], on),
      t.randomUniform(key, [2], on),
      t.randomNormal(key, [2], { ...on, dtype: "bfloat16" }),
      t.arange(3, on),
      t.linspace(0, 1, 3, on),
      t.eye(2, 2, on),
      ...Object.values(t.ropeTables(3, 4, on)),
      t.zerosLike(t.ones([2], on)),
      t.onesLike(t.ones([2], on)),
    ];
    expect(made.map((x) => x.device)).toEqual(made.map(() => "cuda:1"));
    const bytes = await t.encodeSafetensors({ x: made[0]! });
    expect(t.decodeSafetensors(bytes, undefined, on).tensors.x!.device).toBe("cuda:1");
    expect(t.decodeSafetensors(bytes).tensors.x!.device).toBe("cpu");
  });

  it("results and gradients are where the inputs are, whatever the default is", async () => {
    const t = await libraryWith(two);
    const x = t.randomUniform({ seed: 2 }, [3, 4], { device: "cuda:1" });
    const ids = t.tensor(Int32Array.of(0, 2), { device: "cuda:1" });
    const of: Record<string, () => Tensor> = {
      "a number": () => x.mul(2),
      "a number before": () => t.sub(1, x),
      comparison: () => t.greater(x, 0.5),
      where: () => t.where(t.greater(x, 0.5), x, 0),
      rounding: () => t.floor(x),
      quotient: () => t.floorDivide(x, 0.3),
      "logical not": () => t.logicalNot(t.isNaN(x)),
      sum: () => x.sum(),
      "sum of nothing": () => t.sum(x.slice(0, 1, 1), { axis: 0 }),
      "max of integers": () => t.max(ids),
      any: () => t.any(t.isFinite(x)),
      norm: () => t.globalNorm([x]),
      "norm of nothing": () => t.globalNorm([x.slice(0, 1, 1)]),
      clip: () => t.clip(x, 0, 0.5),
      oneHot: () => t.oneHot(ids, 3, { dtype: "bfloat16" }),
      argMax: () => t.argMax(x, { axis: 1 }),
      sort: () => t.sort(x).indices,
      tril: () => t.tril(x),
      matmul: () => x.matmul(x.T),
      "matmul over nothing": () => x.slice(1, 0, 0).matmul(x.slice(1, 0, 0).T),
      pad: () =>
        t.pad(x, [
          [1, 0],
          [0, 1],
        ]),
      cast: () => x.astype("bfloat16"),
      embedding: () => t.embedding(x, ids),
      attention: () => {
        const q = x.reshape([1, 3, 1, 4]);
        return t.attention(q, q, q, { prefix: 1 });
      },
      "attention to nothing": () => {
        const q = x.reshape([1, 3, 1, 4]);
        return t.attention(q, q.slice(1, 0, 0), q.slice(1, 0, 0), { causal: false });
      },
    };
    for (const [name, make] of Object.entries(of)) expect(make().device, name).toBe("cuda:1");
    const { value, grads } = t.valueAndGrad(
      (p: { x: Tensor; unused: Tensor }) =>
        t.checkpoint((a: Tensor) => t.clip(t.softmax(a), 0, 0.3).mul(a).slice(1, 1, 3).sum(), p.x).mul(3),
      { x, unused: t.ones([2], { device: "cuda:1" }) },
    );
    expect([value, grads.x, grads.unused].map((y) => y.device)).toEqual(["cuda:1", "cuda:1", "cuda:1"]);
    expect(t.detectAnomaly(() => t.grad((p: Tensor) => p.exp().sum(), x)).device).toBe("cuda:1");
  });

  it("what an operation of one's own makes goes where its inputs are", async () => {
    const t = await libraryWith(two);
    const made: string[] = [];
    const shifted = t.defineOp<undefined>({
      name: "shifted",
      forward(_context, [x]) {
        const one = t.tensor([1]);
        made.push(one.device);
        return x!.add(one);
      },
      backward(_context, dout) {
        made.push(t.zeros([1]).device, t.zeros([1], { device: "cpu" }).device);
        return [dout];
      },
    });
    t.grad((x: Tensor) => shifted([x], undefined).sum(), t.ones([2], { device: "cuda" }));
    expect(made).toEqual(["cuda:0", "cuda:0", "cpu"]);
    const failing = t.defineOp<undefined>({
      name: "failing",
      forward: () => t.tensor([[1], [2, 3]]),
      backward: () => [],
    });
    expect(() => failing([t.ones([1], { device: "cuda" })], undefined)).toThrow(t.ShapeError);
    expect(t.zeros([1]).device).toBe("cpu");
  });

  it("inputs on two devices are refused, with the call that moves one", async () => {
    const t = await libraryWith(two);
    const [a, b] = [t.ones([2, 2]), t.ones([2, 2], { device: "cuda" })];
    const ids = t.tensor(Int32Array.of(0));
    const refusal = (call: () => unknown) => {
      try {
        call();
      } catch (error) {
        if (error instanceof t.DeviceError) return error.message;
        throw error;
      }
      return "nothing was refused";
    };
    expect(refusal(() => a.add(b))).toBe(
      '[add] tensors must be on one device; a is on cpu and b is on cuda:0. Move one: a.to("cuda:0").',
    );
    expect(refusal(() => b.add(a))).toContain('a is on cuda:0 and b is on cpu. Move one: b.to("cuda:0").');
    expect(refusal(() => t.equal(a, b))).toMatch(/^\[equal\] .*a\.to\("cuda:0"\)/);
    expect(refusal(() => t.linear(a, b))).toContain("x is on cpu and weight is on cuda:0");
    expect(refusal(() => t.embedding(b, ids))).toContain(
      'table is on cuda:0 and ids is on cpu. Move one: ids.to("cuda:0").',
    );
    expect(refusal(() => t.concat([a, b]))).toContain(
      'argument 1 is on cpu and argument 2 is on cuda:0. Move one: x.to("cuda:0").',
    );
    expect(refusal(() => b.add(t.ones([2, 2], { device: "cuda:1" })))).toContain("a is on cuda:0 and b is on cuda:1");
    const q = b.reshape([1, 2, 1, 2]);
    const documents = t.zeros([1, 2], { dtype: "int32" });
    expect(refusal(() => t.attention(q, q, q, { documents }))).toContain("documents of queries is on cpu");
  });

  it("to() copies to another device and lets the gradient back", async () => {
    const t = await libraryWith(two);
    const x = t.tensor(
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      { dtype: "bfloat16" },
    );
    const there = x.T.to("cuda:1");
    expect([there.device, there.dtype, there.shape]).toEqual(["cuda:1", "bfloat16", [3, 2]]);
    expect([...there.astype("float32").dataSync()]).toEqual([1, 4, 2, 5, 3, 6]);
    expect(there.to("cuda:1")).toBe(there);
    for (const dtype of ["bool", "int32", "uint8", "float16", "float64"] as const) {
      const y = x.astype(dtype);
      expect(y.to("cuda").dataSync(), dtype).toEqual(y.dataSync());
    }
    const w = t.tensor([2, 3]);
    const { value, grads } = t.valueAndGrad((p: Tensor) => p.to("cuda").square().sum().to("cpu").mul(2), w);
    expect([value.device, grads.device]).toEqual(["cpu", "cpu"]);
    expect([...grads.dataSync()]).toEqual([8, 12]);
    const tree = t.toDevice({ a: w, b: [there] }, "cuda:1");
    expect([tree.a.device, tree.b[0]]).toEqual(["cuda:1", there]);
  });

  it("copyInto goes between devices", async () => {
    const t = await libraryWith(two);
    const target = t.zeros([2, 2], { device: "cuda", dtype: "int32" });
    t.copyInto(
      target.T,
      t.tensor([
        [1.5, 2],
        [3, 4],
      ]),
    );
    expect([...target.dataSync()]).toEqual([1, 3, 2, 4]);
  });

  it("memory, peak, cache and sync are of a device that is there", async () => {
    const t = await libraryWith(two);
    t.zeros([1], { device: "cuda:1" });
    await t.sync();
    await t.sync("cuda:1");
    await expect(t.sync("cuda:2")).rejects.toThrow(t.DeviceError);
    for (const call of [t.memory, t.resetPeakMemory, t.emptyCache]) {
      call("cuda:1");
      expect(() => call("cuda:7")).toThrow(`[${call.name}] device cuda:7 is not to be had`);
    }
  });
});
