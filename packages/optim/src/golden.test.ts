import { type Tensor, tensor } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import { expectGolden, type GoldenCase, goldenCases, typedArray } from "../test/golden-cases.js";
import { AdamW, adamw, applyUpdates, type GradientTransformation, type Parameter, Sonew, sonew } from "./index.js";

/** The fused optimizer of a case, on tensors or typed arrays. */
function fused<P extends Parameter>(golden: GoldenCase, params: Record<string, P>) {
  const { problem } = golden;
  if (golden.optimizer === "adamw") return new AdamW(params, golden.adamw);
  const shapes = Object.fromEntries(Object.keys(params).map((name, i) => [name, problem.shapes[i]!]));
  return new Sonew(params, { ...golden.sonew, shapes });
}

function transform(golden: GoldenCase): GradientTransformation {
  if (golden.optimizer === "sonew") {
    const { learningRate = 1e-3, ...options } = golden.sonew;
    return sonew(learningRate, options);
  }
  const { learningRate = 1e-3, ...options } = golden.adamw;
  return adamw(learningRate, options);
}

/** Takes all steps of a case with `make` for its arrays, comparing after each. */
async function replay<P extends Parameter>(
  golden: GoldenCase,
  make: (values: readonly number[], shape: readonly number[]) => P,
  read: (array: P) => ArrayLike<number>,
): Promise<void> {
  const { problem } = golden;
  const record = (arrays: readonly number[][]): Record<string, P> =>
    Object.fromEntries(arrays.map((values, i) => [`tensor${i}`, make(values, problem.shapes[i]!)]));
  const params = record(problem.params0);
  const optimizer = fused(golden, params);
  let dropped = 0;
  for (const [i, grads] of problem.grads.entries()) {
    optimizer.step(record(grads));
    expectGolden(golden, i + 1, Object.values(params).map(read));
    if (golden.dropped && golden.dtype === "float64" && optimizer instanceof Sonew) {
      const total: number = await optimizer.droppedEdges();
      expect(total - dropped, `edges dropped in step ${i + 1}`).toBe(golden.dropped[i]);
      dropped = total;
    }
  }
}

describeGolden("optimizers.json", (path) => {
  const cases = goldenCases(path);

  it.each(cases)("$id: fused, tensors", (golden) =>
    replay(
      golden,
      (values, shape) => tensor(typedArray(golden.dtype, values), { shape }),
      (x: Tensor) => x.dataSync(),
    ),
  );

  it.each(cases)("$id: fused, typed arrays", (golden) =>
    replay(
      golden,
      (values) => typedArray(golden.dtype, values),
      (x) => x,
    ),
  );

  it.each(cases)("$id: transform", (golden) => {
    const { problem, dtype } = golden;
    const tree = (arrays: readonly number[][]): Tensor[] =>
      arrays.map((values, i) => tensor(typedArray(dtype, values), { shape: problem.shapes[i]! }));
    const tx = transform(golden);
    let params = tree(problem.params0);
    let state = tx.init(params);
    for (const [i, grads] of problem.grads.entries()) {
      const result = tx.update(tree(grads), state, params);
      params = applyUpdates(params, result.updates);
      state = result.state;
      expectGolden(
        golden,
        i + 1,
        params.map((x) => x.dataSync()),
      );
    }
  });
});
