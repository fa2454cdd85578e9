import { engine } from "@llmeff/native";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { counted, reader, table } from "../../test/plain.js";
import * as t from "../index.js";
import { scope, type Tensor } from "../index.js";

const values = (x: Tensor) => [...x.dataSync()];
const shapes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 });
/** A tensor that shares no memory but with its views. */
const isView = (make: (x: Tensor) => Tensor, shape: number[]) => {
  using x = counted(shape);
  using y = make(x);
  return engine().isShared(y.handle);
};

describe("reshape", () => {
  it("copies only what no strides can show", () => {
    expect(isView((x) => x.reshape([6, 4]), [2, 3, 4])).toBe(true);
    // Axes that lie behind each other may be merged and divided, whatever the others do.
    expect(isView((x) => x.transpose(0, 1).reshape([3, 2, 2, 2]), [2, 3, 4])).toBe(true);
    expect(isView((x) => x.slice(2, 0, 2).reshape([6, 2]), [2, 3, 4])).toBe(true);
    expect(isView((x) => x.expand([5, 2, 3]).reshape([5, 6]), [2, 3])).toBe(true);
    expect(isView((x) => t.flip(x, [0, 1]).reshape([6]), [2, 3])).toBe(true);
    expect(isView((x) => x.T.reshape([6]), [2, 3])).toBe(false);
    expect(isView((x) => x.slice(1, 0, 2).reshape([4]), [2, 3])).toBe(false);
  });

  it("keeps the row-major order of every view", () => {
    fc.assert(
      fc.property(shapes, fc.array(fc.nat(3), { minLength: 4, maxLength: 4 }), fc.boolean(), (shape, keys, cut) => {
        scope(() => {
          const axes = shape.map((_, axis) => axis).sort((a, b) => keys[a]! - keys[b]! || a - b);
          let x = counted(shape).permute(axes);
          if (cut) x = t.flip(x.slice(0, 0, Math.ceil(x.shape[0]! / 2)), -1);
          const expected = values(x.clone());
          for (const target of [[-1], [x.shape[0]!, -1], [-1, x.shape.at(-1)!], [1, ...x.shape, 1]]) {
            expect(values(x.reshape(target))).toEqual(expected);
          }
        });
      }),
    );
  });
});

describe("squeeze and unsqueeze", () => {
  it("take away and put in axes of size 1, without a copy", () => {
    expect(counted([1, 3, 1]).squeeze().shape).toEqual([3]);
    expect(counted([1, 3, 1]).squeeze(-1).shape).toEqual([1, 3]);
    expect(counted([1, 3, 1]).squeeze([0, 2]).shape).toEqual([3]);
    expect(counted([2, 3]).unsqueeze(1).shape).toEqual([2, 1, 3]);
    expect(counted([2, 3]).unsqueeze(-1).shape).toEqual([2, 3, 1]);
    expect(counted([1]).squeeze().shape).toEqual([]);
    expect(isView((x) => x.T.unsqueeze(1).squeeze(), [2, 3])).toBe(true);
    expect(values(counted([2, 3]).T.unsqueeze(1))).toEqual([0, 3, 1, 4, 2, 5]);
    expect(t.zeros([2, 0]).unsqueeze(0).shape).toEqual([1, 2, 0]);
  });

  it("refuse an axis that isn't 1, and one too many", () => {
    expect(() => t.squeeze(counted([2, 3]), 1)).toThrow("[squeeze] axis 1 of [2, 3] has size 3, not 1.");
    expect(() => t.squeeze(counted([1, 1]), [0, -2])).toThrow("named once");
    expect(() => t.unsqueeze(counted([2]), 2)).toThrow("-2..1");
    expect(() => t.unsqueeze(t.zeros([1, 1, 1, 1, 1, 1, 1, 1]), 0)).toThrow("at most 8");
  });
});

describe("flatten", () => {
  it("merges a range of axes", () => {
    const x = counted([2, 3, 4]);
    expect(x.flatten().shape).toEqual([24]);
    expect(x.flatten(1).shape).toEqual([2, 12]);
    expect(x.flatten(0, 1).shape).toEqual([6, 4]);
    expect(values(x.permute([1, 0, 2]).flatten(0, 1).slice(0, 1, 2))).toEqual([12, 13, 14, 15]);
    expect(t.tensor(3).flatten().shape).toEqual([1]);
    expect(() => x.flatten(2, 0)).toThrow("start must not lie behind end");
  });
});

describe("movedim", () => {
  it("moves axes and keeps the order of the rest", () => {
    const x = counted([2, 3, 4, 5]);
    expect(t.movedim(x, 0, -1).shape).toEqual([3, 4, 5, 2]);
    expect(t.movedim(x, -1, 0).shape).toEqual([5, 2, 3, 4]);
    expect(t.movedim(x, [0, 1], [-1, 0]).shape).toEqual([3, 4, 5, 2]);
    const at = reader(x);
    const moved = t.movedim(x, 1, 3);
    expect(values(moved)).toEqual(table(moved.shape, ([a, c, d, b]) => at([a!, b!, c!, d!])));
    expect(() => t.movedim(x, [0, 1], 2)).toThrow("2 axes and 1 places");
  });
});
