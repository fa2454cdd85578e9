import { add, grad, matmul, randomNormal, ShapeError, scope, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { type FeatureLoss, featureLoss, featureProjections, studentParameters } from "./features.js";

const normal = (stream: number, shape: number[]) => randomNormal({ seed: 6, stream }, shape, { dtype: "float64" });
const losses: FeatureLoss[] = ["mse", "cosine", "unitMse"];

describe("featureLoss", () => {
  it("is what its formulas say on a small case", () => {
    scope(() => {
      // Rows (3, 4) and (0, 2) against (4, 3) and (0, 2): squared differences 1, 1, 0, 0; cosines 24/25 and 1.
      const pair = {
        student: tensor([
          [3, 4],
          [0, 2],
        ]),
        teacher: tensor([
          [4, 3],
          [0, 2],
        ]),
      };
      const value = (loss: FeatureLoss) => featureLoss([pair], { loss }).itemSync();
      expect(value("mse")).toBeCloseTo(0.5, 6);
      expect(value("cosine")).toBeCloseTo(0.02, 6);
      // |a − b|² = 2 − 2 cos of unit vectors, over two channels.
      expect(value("unitMse")).toBeCloseTo(0.02, 6);
      const mask = tensor(Int32Array.of(1, 0)).astype("bool");
      expect(featureLoss([pair], { mask }).itemSync()).toBeCloseTo(1, 6);
      expect(featureLoss([pair, { student: pair.student, teacher: pair.student }]).itemSync()).toBeCloseTo(0.25, 6);
    });
  });

  it.each(losses)("has the gradient of its value, for states and projection: %s", (loss) => {
    scope(() => {
      const [x, w, y] = [normal(1, [5, 3]), normal(2, [3, 4]), normal(3, [5, 4])];
      const mask = tensor(Int32Array.of(1, 1, 0, 1, 1)).astype("bool");
      const value = (student: Tensor, projection: Tensor) =>
        featureLoss([{ student, teacher: y, projection }], { loss, mask });
      const { grads } = valueAndGrad(([a, b]: readonly [Tensor, Tensor]) => value(a, b), [x, w] as const);
      for (const [i, shape] of [
        [0, [5, 3]],
        [1, [3, 4]],
      ] as const) {
        const direction = normal(7 + i, [...shape]);
        const at = (h: number) => {
          const moved = [x, w].with(i, add([x, w][i]!, direction.mul(h))) as [Tensor, Tensor];
          return value(...moved).itemSync();
        };
        const slope = (h: number) => (at(h) - at(-h)) / (2 * h);
        const wanted = (4 * slope(5e-4) - slope(1e-3)) / 3;
        expect(Math.abs(grads[i].mul(direction).sum().itemSync() - wanted)).toBeLessThan(1e-6 * (1 + Math.abs(wanted)));
      }
    });
  });

  it.each(losses)("gives the teacher no gradient and is 0 for equals: %s", (loss) => {
    scope(() => {
      const [x, w] = [normal(1, [5, 3]), normal(2, [3, 4])];
      const same = featureLoss([{ student: x, teacher: matmul(x, w), projection: w }], { loss }).itemSync();
      expect(Math.abs(same)).toBeLessThan(1e-15);
      const slope = grad((teacher: Tensor) => featureLoss([{ student: x, teacher }], { loss }), normal(4, [5, 3]));
      expect(slope.dataSync().every((g) => g === 0)).toBe(true);
    });
  });

  it("stays finite for states of zeros", () => {
    scope(() => {
      for (const loss of losses) {
        const zero = normal(1, [2, 3]).mul(0);
        const { value, grads } = valueAndGrad(
          (student: Tensor) => featureLoss([{ student, teacher: normal(2, [2, 3]) }], { loss }),
          zero,
        );
        expect([value.itemSync(), ...grads.dataSync()].every(Number.isFinite)).toBe(true);
      }
    });
  });

  it("refuses states that don't fit, naming the pair", () => {
    scope(() => {
      const [x, y] = [normal(1, [5, 3]), normal(3, [5, 4])];
      expect(() => featureLoss([{ student: x, teacher: y }])).toThrow(ShapeError);
      expect(() =>
        featureLoss([
          { student: x, teacher: x },
          { student: x, teacher: y },
        ]),
      ).toThrow("pair 1");
      expect(() => featureLoss([])).toThrow("received none");
      expect(() => featureLoss([{ student: x, teacher: x }], { loss: "l1" as never })).toThrow(
        "mse, cosine or unitMse",
      );
    });
  });
});

describe("featureProjections", () => {
  it("belong to the distiller: the student's parameters are those without them", () => {
    const like = normal(1, [2]);
    const made = featureProjections(
      [
        [3, 4],
        [5, 6],
      ],
      { seed: 1, like },
    );
    expect(Object.entries(made).map(([name, { shape }]) => [name, shape])).toEqual([
      ["distill.projection.0", [3, 4]],
      ["distill.projection.1", [5, 6]],
    ]);
    expect(studentParameters({ ...made, "lm_head.weight": like })).toEqual({ "lm_head.weight": like });
  });
});
