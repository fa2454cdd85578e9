/** Failures on purpose in this process: each is told clearly, changes nothing, and the next step works. */
import {
  CaptureError,
  captureStep,
  DeviceError,
  devices,
  eigh,
  emptyCache,
  memory,
  OutOfMemoryError,
  ones,
  scope,
  sort,
  sync,
  type Tensor,
  tensor,
  zeros,
} from "@llmeff/tensor";
import { afterEach, describe, expect, it } from "vitest";
import { onGpu } from "./gpu.js";
import { Run, small } from "./step.js";

const gibibyte = 2 ** 30;

/** Float32 blocks of this many bytes until there is no room for another. */
function fill(blockBytes: number): Tensor[] {
  const blocks: Tensor[] = [];
  for (;;) {
    try {
      blocks.push(zeros([blockBytes / 4]));
    } catch (error) {
      if (error instanceof OutOfMemoryError) return blocks;
      throw error;
    }
  }
}

function disposeAll(tensors: Iterable<Tensor>): void {
  for (const x of tensors) x.dispose();
}

/** What calling throws. */
function errorOf(call: () => unknown): Error & { code?: string } {
  try {
    call();
  } catch (error) {
    return error as Error;
  }
  throw new Error("nothing was thrown");
}

describe.skipIf(!onGpu)("out of memory on a GPU", () => {
  afterEach(() => emptyCache());

  it("tells what is live, and what is live stays", async () => {
    using x = ones([1000]);
    const { liveBytes, tensors } = memory();
    const error = errorOf(() => zeros([2 ** 20, 2 ** 20]));
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(error).toMatchObject({ code: "ERR_OUT_OF_MEMORY" });
    expect(error.message).toMatch(
      new RegExp(
        `^\\[cuda:0\\] out of memory: ${2 ** 42} bytes were asked for while tensors hold ${liveBytes}, \\d+ are kept for reuse and \\d+ of \\d+ are free\\. Dispose tensors, use scope\\(\\), emptyCache\\(\\), or a smaller batch\\.$`,
      ),
    );
    expect(memory()).toMatchObject({ liveBytes, tensors });
    expect((await x.add(1).data())[999]).toBe(2);
  });

  it("in a training step leaves the run as it was; with room it goes on to the same bits", async () => {
    const [undisturbed, run] = [new Run(small), new Run(small)];
    for (let i = 0; i < 2; i++) expect(await run.step()).toBe(await undisturbed.step());
    const before = await run.bits();
    emptyCache();
    const { tensors } = memory();
    const blocks = [...fill(4 * gibibyte), ...fill(gibibyte / 4), ...fill(2 ** 24), ...fill(2 ** 20), ...fill(4096)];
    const error = errorOf(() => run.enqueue());
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(memory().tensors).toBe(tensors + blocks.length);
    disposeAll(blocks);
    await sync();
    expect(await run.bits()).toBe(before);
    expect(run.optimizer.stepCount).toBe(2);
    await undisturbed.step();
    await run.step();
    expect(await run.bits()).toBe(await undisturbed.bits());
    for (const one of [run, undisturbed]) one.dispose();
  });

  it("of a kernel's own memory fails the read, and works after emptyCache()", async () => {
    // What was disposed is kept for reuse: the results, of the size of x, find room there, the kernel's memory doesn't.
    const columns = 2 ** 26;
    using x = scope(() =>
      tensor([[3], [1], [2]])
        .mul(ones([1, columns]))
        .reshape([3 * columns]),
    );
    disposeAll(fill(4 * x.size));
    const sorted = () => scope(() => sort(x).values.slice(0, 0, 1));
    {
      using bad = sorted();
      await expect(bad.data()).rejects.toMatchObject({
        code: "ERR_OUT_OF_MEMORY",
        message: expect.stringMatching(
          /^\[\w+\] out of memory: the kernel itself needs \d+ bytes while tensors hold \d+, \d{9,} are kept for reuse and \d+ of \d+ are free/,
        ),
      });
    }
    emptyCache();
    using good = sorted();
    expect(await good.data()).toEqual(Float32Array.of(1));
  });
});

describe.skipIf(!onGpu)("a gradient that is not finite", () => {
  const spoiled = (value: number) => (grads: Record<string, Tensor>) => {
    const [name, grad] = Object.entries(grads)[1]!;
    return { ...grads, [name]: grad.mul(0).add(value) };
  };

  it.each([
    ["AdamW", Number.NaN],
    ["AdamW", Number.POSITIVE_INFINITY],
    ["Sonew", Number.NaN],
    ["Sonew", Number.NEGATIVE_INFINITY],
  ] as const)("is passed over by %s (%d), and the next step works", async (optimizer, value) => {
    const run = new Run(small, { optimizer });
    const first = await run.step();
    const before = await run.bits();
    await run.step(spoiled(value));
    expect(Number.isFinite(await run.optimizer.gradNorm())).toBe(false);
    expect(await run.bits()).toBe(before);
    let last = await run.step();
    expect(Number.isFinite(await run.optimizer.gradNorm())).toBe(true);
    expect(await run.bits()).not.toBe(before);
    for (let i = 0; i < 20; i++) last = await run.step();
    expect(last).toBeLessThan(first - 0.5);
    run.dispose();
  });
});

describe.skipIf(!onGpu)("an operation that a GPU doesn't record", () => {
  it("refuses the capture by name, and the step goes on as it is", async () => {
    using counts = zeros([1]);
    const symmetric = Float32Array.of(2, 1, 1, 2);
    const step = captureStep(({ x }) => eigh(x.add(counts)).values, { inputs: { x: { shape: [2, 2] } }, warmup: 1 });
    const values = async () => {
      using result = step({ x: symmetric });
      return (await result.data()).map((value) => Math.round(value * 1e5) / 1e5);
    };
    expect(await values()).toEqual(Float32Array.of(1, 3));
    const error = errorOf(() => step({ x: symmetric }));
    expect(error).toBeInstanceOf(CaptureError);
    expect(error.message).toBe(
      "[eigh] can't be part of a captured step on a GPU: cuSOLVER is not recorded. Call it outside.",
    );
    expect(step.mode).toBe("eager");
    expect(await values()).toEqual(Float32Array.of(1, 3));
    step.dispose();
  });
});

describe.skipIf(!onGpu)("devices that aren't there, or aren't the same", () => {
  it("a number above the last GPU is refused with what there is", () => {
    const number = devices().length - 1;
    const error = errorOf(() => zeros([1], { device: `cuda:${number}` }));
    expect(error).toBeInstanceOf(DeviceError);
    expect(error.message).toContain(
      `[full] device cuda:${number} is not to be had. On this machine there are: cpu, cuda:0 (`,
    );
    expect(() => new Run(small, { device: `cuda:${number}` })).toThrow(DeviceError);
  });

  it("tensors of the CPU and the GPU in one operation are refused with the call that moves one", async () => {
    const [here, there] = [ones([2, 2], { device: "cpu" }), ones([2, 2])];
    for (const call of [() => here.add(there), () => there.matmul(here), () => here.matmul(there)]) {
      const error = errorOf(call);
      expect(error).toBeInstanceOf(DeviceError);
      expect(error.message).toMatch(/one device; .* is on cpu.*\.to\("cuda:0"\)\.$/);
    }
    expect(await here.to("cuda:0").add(there).data()).toEqual(new Float32Array(4).fill(2));
  });
});
