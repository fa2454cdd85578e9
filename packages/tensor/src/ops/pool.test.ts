import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expectClose, floatDTypes, sumError } from "../../test/compare.js";
import { sample } from "../../test/numbers.js";
import {
  avgPool1d,
  avgPool2d,
  maxPool1d,
  maxPool2d,
  OptionError,
  ShapeError,
  scope,
  type Tensor,
  tensor,
  valueAndGrad,
  zeros,
} from "../index.js";

/** Positions in the image that each window has, as lists, in row-major order. */
function windowsOf(size: number[], kernel: number[], stride: number[], padding: number[]): number[][] {
  const [H, W] = size as [number, number];
  const starts = [0, 1].map((axis) => {
    const list: number[] = [];
    for (let at = -padding[axis]!; at + kernel[axis]! <= size[axis]! + padding[axis]!; at += stride[axis]!)
      list.push(at);
    return list;
  });
  return starts[0]!.flatMap((top) =>
    starts[1]!.map((left) => {
      const inside: number[] = [];
      for (let h = Math.max(0, top); h < Math.min(H, top + kernel[0]!); h++)
        for (let w = Math.max(0, left); w < Math.min(W, left + kernel[1]!); w++) inside.push(h * W + w);
      return inside;
    }),
  );
}

describe("pooling", () => {
  it("computes worked examples", () => {
    const x = tensor([1, 2, 3, 4, 5, 6, 7, 8, 9], { shape: [1, 1, 3, 3] });
    expect([...maxPool2d(x, 2, { stride: 1 }).dataSync()]).toEqual([5, 6, 8, 9]);
    expect([...avgPool2d(x, 2, { stride: 1 }).dataSync()]).toEqual([3, 4, 6, 7]);
    // Padding isn't counted: the corner windows have one, two, two and four elements.
    expect([...avgPool2d(x, 2, { padding: 1 }).dataSync()]).toEqual([1, 2.5, 5.5, 7]);
    expect([...maxPool1d(x.reshape([1, 3, 3]), 2).dataSync()]).toEqual([2, 5, 8]);
    expect([...avgPool1d(x.reshape([1, 1, 9]), 3, { stride: 2, padding: 1 }).dataSync()]).toEqual([1.5, 3, 5, 7, 8.5]);
  });

  it.each(floatDTypes)("agrees with plain loops for any geometry, value and gradient (%s)", (dtype) => {
    const pair = (low: number, high: number) =>
      fc.tuple(fc.integer({ min: low, max: high }), fc.integer({ min: low, max: high }));
    const problems = fc
      .record({ planes: pair(1, 3), size: pair(1, 9), kernel: pair(1, 5), stride: pair(1, 3), padding: pair(0, 2) })
      .filter(({ size, kernel, padding }) =>
        kernel.every((n, i) => 2 * padding[i]! <= n && n <= size[i]! + 2 * padding[i]!),
      );
    const property = fc.property(problems, ({ planes, size, kernel, stride, padding }) =>
      scope(() => {
        const x = sample([...planes, ...size], 5, { dtype });
        const windows = windowsOf(size, kernel, stride, padding);
        const values = x.dataSync();
        const plane = size[0]! * size[1]!;
        for (const [name, pool] of Object.entries({ maxPool2d, avgPool2d })) {
          const { aux, grads } = valueAndGrad((p: Tensor) => {
            const out = pool(p, kernel, { stride, padding });
            const dy = sample([...out.shape], 6, { dtype });
            return { loss: out.mul(dy).sum(), aux: { out, dy } };
          }, x);
          const dy = aux.dy.dataSync();
          const [out, dx] = [new Float64Array(dy.length), new Float64Array(values.length)];
          for (let p = 0; p < dy.length; p++) {
            const base = Math.floor(p / windows.length) * plane;
            const inside = windows[p % windows.length]!.map((i) => base + i);
            if (name === "maxPool2d") {
              const best = inside.reduce((a, b) => (values[b]! > values[a]! ? b : a));
              out[p] = values[best]!;
              dx[best]! += dy[p]!;
            } else {
              out[p] = inside.reduce((total, i) => total + values[i]!, 0) / inside.length;
              for (const i of inside) dx[i]! += dy[p]! / inside.length;
            }
          }
          expectClose(aux.out.dataSync(), out, { atol: sumError(kernel[0] * kernel[1], dtype) }, name);
          expectClose(grads.dataSync(), dx, { atol: sumError(kernel[0] * kernel[1], dtype) }, `gradient of ${name}`);
        }
      }),
    );
    fc.assert(property, { numRuns: 40, seed: 4 });
  });

  it("lets the first of equals win, a NaN always, and works where all is -inf", () => {
    const gradient = (values: number[]) =>
      valueAndGrad((x: Tensor) => maxPool2d(x, [1, 3]).sum(), tensor(values, { shape: [1, 1, 1, 3] }));
    expect([...gradient([1, 2, 2]).grads.dataSync()]).toEqual([0, 1, 0]);
    const low = gradient([-Infinity, -Infinity, -Infinity]);
    expect([low.value.itemSync(), ...low.grads.dataSync()]).toEqual([-Infinity, 1, 0, 0]);
    const strange = gradient([3, Number.NaN, Number.NaN]);
    expect([strange.value.itemSync(), ...strange.grads.dataSync()]).toEqual([Number.NaN, 0, 1, 0]);
  });

  it("takes views and empty batches", () => {
    const x = sample([2, 4, 6, 3], 1);
    const view = x.permute([0, 3, 1, 2]);
    expect([...maxPool2d(view, 2).dataSync()]).toEqual([...maxPool2d(view.clone(), 2).dataSync()]);
    expect(avgPool2d(zeros([0, 2, 4, 4]), 2).shape).toEqual([0, 2, 2, 2]);
  });

  it("refuses what doesn't fit", () => {
    expect(() => maxPool2d(zeros([2, 4, 4]), 2)).toThrow(ShapeError);
    expect(() => maxPool2d(zeros([1, 2, 4, 4]), 5)).toThrow("[maxPool2d] a window of 5 doesn't fit an axis of 4");
    expect(() => maxPool2d(zeros([1, 2, 4, 0]), 2, { padding: 1 })).toThrow("doesn't fit an axis of 0");
    expect(() => avgPool2d(zeros([1, 2, 4, 4]), 2, { padding: 2 })).toThrow("at most half the window");
    expect(() => avgPool2d(zeros([1, 2, 4, 4]), 0)).toThrow(OptionError);
    expect(() => avgPool1d(zeros([1, 2, 4, 4]), 2)).toThrow(ShapeError);
    expect(() => maxPool1d(zeros([1, 2, 4]), [2, 2] as never)).toThrow(OptionError);
    expect(() => avgPool1d(zeros([1, 2, 4]), 5)).toThrow("[avgPool1d] a window of 5 doesn't fit an axis of 4");
    const wide = zeros([1, 1, 1, 1]).expand([1, 1, 2 ** 16, 2 ** 15]);
    expect(() => maxPool2d(wide, 2)).toThrow(
      "[maxPool2d] an image must have at most 2147483647 elements, since positions are int32; received 2147483648.",
    );
    expect(() => maxPool1d(zeros([1, 1, 1]).expand([1, 1, 2 ** 31]), 2)).toThrow("[maxPool1d] an image must have");
  });
});
