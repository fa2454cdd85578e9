/** Two GPUs at once. */
import {
  DeviceError,
  defaultDevice,
  devices,
  memory,
  randomNormal,
  setDefaultDevice,
  sync,
  type Tensor,
} from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { onGpu } from "./gpu.js";
import { Run, small } from "./step.js";

const hasTwo = onGpu && devices().length > 2;
const [first, second] = ["cuda:0", "cuda:1"] as const;

describe.skipIf(!hasTwo)("two GPUs", () => {
  it("train side by side to the same bits, each with its own memory", async () => {
    const runs = [new Run(small, { device: first }), new Run(small, { device: second })];
    let held: number[] = [];
    for (let step = 0; step < 10; step++) {
      const losses = runs.map((run) => run.enqueue()); // both at work before either is waited for
      const [a, b] = await Promise.all(losses.map((loss) => loss.item()));
      expect(a).toBe(b);
      for (const loss of losses) loss.dispose();
      if (step === 0) held = [memory(first).liveBytes, memory(second).liveBytes];
    }
    const [a, b] = await Promise.all(runs.map((run) => run.bits()));
    expect(a).toBe(b);
    for (const [i, device] of [first, second].entries()) {
      await sync(device);
      expect(memory(device).liveBytes).toBe(held[i]);
      expect(Object.values(runs[i]!.params).every((p) => p.device === device)).toBe(true);
    }
    for (const run of runs) run.dispose();
  });

  it.each(["float32", "bfloat16", "float64"] as const)("copy %s between them, whatever the layout", async (dtype) => {
    const x = randomNormal({ seed: 4 }, [300, 70], { device: first, dtype });
    const there = x.T.to(second);
    expect([there.device, there.shape]).toEqual([second, [70, 300]]);
    expect(await there.T.to(first).data()).toEqual(await x.data());
    expect(await there.data()).toEqual(await x.T.data());
    // A copy waits for the work before it, on either side.
    const product = x.astype("float32").matmul(x.astype("float32").T);
    const onward = product.to(second).add(product.to(second));
    expect(await onward.data()).toEqual(await product.mul(2).data());
  });

  it("take many copies both ways while both compute", async () => {
    const [a, b] = [
      randomNormal({ seed: 1 }, [512, 512], { device: first }),
      randomNormal({ seed: 2 }, [512, 512], { device: second }),
    ];
    const reads: Promise<unknown>[] = [];
    const wanted: Promise<unknown>[] = [];
    for (let i = 0; i < 50; i++) {
      const [scaledA, scaledB]: Tensor[] = [a.mul(i), b.mul(i)];
      reads.push(scaledA!.to(second).add(scaledB!).data(), scaledB!.to(first).add(scaledA!).data());
      wanted.push(a.to("cpu").mul(i).add(b.to("cpu").mul(i)).data());
    }
    const [got, want] = [await Promise.all(reads), await Promise.all(wanted)];
    // As bytes: a matcher looks at a quarter of a million numbers one by one, a hundred times.
    const bytes = (x: unknown) => Buffer.from((x as Float32Array).buffer);
    for (const [i, one] of want.entries()) {
      expect(bytes(got[2 * i]).equals(bytes(one))).toBe(true);
      expect(bytes(got[2 * i + 1]).equals(bytes(one))).toBe(true);
    }
  });

  it("in one operation are refused with the call that moves one", async () => {
    const [a, b] = [
      randomNormal({ seed: 1 }, [2, 2], { device: first }),
      randomNormal({ seed: 1 }, [2, 2], { device: second }),
    ];
    expect(() => a.add(b)).toThrow(DeviceError);
    expect(() => a.matmul(b)).toThrow(/a is on cuda:0 and b is on cuda:1\. Move one: .*\.to\("cuda:0"\)/);
    expect(await a.add(b.to(first)).data()).toEqual(await a.mul(2).data());
  });

  it("the second can be the default", async () => {
    const before = defaultDevice();
    setDefaultDevice(second);
    try {
      const run = new Run(small);
      const losses = [await run.step()];
      for (let i = 0; i < 20; i++) losses.push(await run.step());
      expect(losses.at(-1)).toBeLessThan(losses[0]! - 0.5);
      expect(Object.values(run.params)[0]!.device).toBe(second);
      run.dispose();
    } finally {
      setDefaultDevice(before);
    }
  });
});
