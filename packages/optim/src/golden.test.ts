import { type Tensor, tensor } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import {
  expectGolden,
  expectUnit,
  factorUnits,
  type GoldenCase,
  goldenCases,
  typedArray,
} from "../test/golden-cases.js";
import {
  Adafactor,
  Adagrad,
  AdamW,
  adafactor,
  adagrad,
  adamw,
  applyUpdates,
  type GradientTransformation,
  Lamb,
  Lion,
  lamb,
  lion,
  NAdamW,
  nadamw,
  type Optimizer,
  type Parameter,
  RMSprop,
  rmsprop,
  ScheduleFreeAdamW,
  type ScheduleFreeState,
  SGD,
  SM3,
  Sonew,
  scheduleFreeAdamw,
  scheduleFreeEvalParams,
  sgd,
  sm3,
  sonew,
} from "./index.js";
import type { SonewState } from "./sonew.js";
import { factorise, precondition } from "./sonew-factor.js";
import { roundingUnit } from "./sonew-options.js";

type Options = Record<string, unknown>;
type Constructor = new <P extends Parameter>(params: Readonly<Record<string, P>>, options: Options) => Optimizer<P>;

/** Both coats of a method, and the options that the file's cases have by default where ours has others. */
interface Method {
  Class: Constructor;
  transform: (learningRate: number, options: Options) => GradientTransformation;
  defaults?: Options & { learningRate: number };
}
const method = (Class: unknown, transform: unknown, defaults?: Method["defaults"]): Method =>
  ({ Class, transform, defaults }) as Method;

const methods: Record<string, Method> = {
  sgd: method(SGD, sgd),
  adagrad: method(Adagrad, adagrad),
  rmsprop: method(RMSprop, rmsprop),
  adamw: method(AdamW, adamw, { learningRate: 1e-3 }),
  nadamw: method(NAdamW, nadamw),
  lion: method(Lion, lion),
  schedule_free_adamw: method(ScheduleFreeAdamW, scheduleFreeAdamw),
  lamb: method(Lamb, lamb),
  adafactor: method(Adafactor, adafactor, { learningRate: 1e-2, eps1: 1e-30 }),
  sm3: method(SM3, sm3),
  sonew: method(Sonew, sonew, { learningRate: 1e-3, gamma: 0, graft: "none" }),
};

const optionsOf = ({ optimizer, options }: GoldenCase): Options => ({ ...methods[optimizer]!.defaults, ...options });

/** The optimizer of a case, on tensors or typed arrays. */
function optimizerOf<P extends Parameter>(golden: GoldenCase, params: Record<string, P>): Optimizer<P> {
  const { problem, optimizer } = golden;
  const shapes = Object.fromEntries(Object.keys(params).map((name, i) => [name, problem.shapes[i]!]));
  return new methods[optimizer]!.Class(params, { ...optionsOf(golden), shapes });
}

function transformOf(golden: GoldenCase): GradientTransformation {
  const { learningRate, ...options } = optionsOf(golden);
  return methods[golden.optimizer]!.transform(learningRate as number, options);
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
  const optimizer = optimizerOf(golden, params);
  let dropped = 0;
  for (const [i, grads] of problem.grads.entries()) {
    optimizer.step(record(grads));
    expectGolden(golden, i + 1, Object.values(params).map(read));
    if (optimizer instanceof ScheduleFreeAdamW) {
      optimizer.eval();
      expectGolden(golden, i + 1, Object.values(params).map(read), golden.evalExpected);
      optimizer.train();
    }
    if (golden.dropped && golden.dtype === "float64" && optimizer instanceof Sonew) {
      const total: number = await optimizer.droppedEdges();
      expect(total - dropped, `edges dropped in step ${i + 1}`).toBe(golden.dropped[i]);
      dropped = total;
    }
  }
}

describeGolden("optimizers.json", (path) => {
  const cases = goldenCases(path, ({ optimizer }) => optimizer in methods);

  it.each(cases)("$id: tensors", (golden) =>
    replay(
      golden,
      (values, shape) => tensor(typedArray(golden.dtype, values), { shape }),
      (x: Tensor) => x.dataSync(),
    ),
  );

  it.each(cases)("$id: typed arrays", (golden) =>
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
    const tx = transformOf(golden);
    let params = tree(problem.params0);
    let state = tx.init(params);
    let dropped = 0;
    for (const [i, grads] of problem.grads.entries()) {
      const result = tx.update(tree(grads), state, params);
      params = applyUpdates(params, result.updates);
      state = result.state;
      expectGolden(
        golden,
        i + 1,
        params.map((x) => x.dataSync()),
      );
      if (golden.evalExpected) {
        const average = scheduleFreeEvalParams(params, state as unknown as ScheduleFreeState);
        expectGolden(
          golden,
          i + 1,
          average.map((x) => x.dataSync()),
          golden.evalExpected,
        );
      }
      if (golden.dropped && golden.dtype === "float64") {
        const total = (state as readonly [SonewState])[0].dropped.itemSync();
        expect(total - dropped, `edges dropped in step ${i + 1}`).toBe(golden.dropped[i]);
        dropped = total;
      }
    }
  });

  const units = factorUnits(path).map((unit, i) => ({ ...unit, id: `factorisation ${i} (band ${unit.band})` }));

  it.each(units)("$id: transform", (unit) => {
    const chain = (values: readonly number[]) =>
      tensor(
        Float64Array.from({ length: unit.n }, (_, j) => values[j] ?? 0),
        { shape: [1, unit.n] },
      );
    const factor = factorise(unit.diagonals.map(chain), {
      gamma: unit.gamma,
      gammaMode: unit.gamma_mode,
      drop: unit.drop,
      pivotFloor: roundingUnit("float64"),
    });
    expectUnit("S", factor.schur.dataSync(), unit.schur, unit.rtol);
    const failed = [...factor.failed.dataSync()].flatMap((x, j) => (x ? [j] : []));
    expect(failed).toEqual(unit.dropped);
    expectUnit(
      "D",
      factor.pivots.dataSync().map((x) => 1 / x),
      unit.D,
      unit.rtol,
    );
    for (const [k, lower] of factor.lower.entries()) {
      const want = unit.L.map((column) => column[k] ?? 0);
      expectUnit(`L[j + ${k + 1}, j]`, lower.dataSync(), want, unit.rtol);
    }
    expectUnit("u", precondition(factor, chain(unit.m)).dataSync(), unit.u, unit.rtol);
  });

  // A step whose gradient is 0 halves the averages it finds, and moves p = 0 by −u. The δ that the diagonals have is far above eps.
  it.each(units)("$id: fused", async (unit) => {
    const p = new Float64Array(unit.n);
    const optimizer = new Sonew(
      { p },
      {
        learningRate: 1,
        beta1: 0.5,
        beta2: 0.5,
        biasCorrection: false,
        eps: 1e-300,
        graft: "none",
        band: unit.band,
        gamma: unit.gamma,
        gammaMode: unit.gamma_mode,
        drop: unit.drop,
      },
    );
    const { tensors, meta } = optimizer.stateDict();
    const twice = (values: readonly number[]) => Float64Array.from({ length: unit.n }, (_, j) => 2 * (values[j] ?? 0));
    const saved = Object.fromEntries(unit.diagonals.map((diagonal, k) => [`p.h${k}`, twice(diagonal)]));
    optimizer.loadStateDict({ tensors: { ...tensors, "p.m": twice(unit.m), ...saved }, meta });
    optimizer.step({ p: new Float64Array(unit.n) });
    expectUnit(
      "u",
      p.map((x) => 0 - x),
      unit.u,
      unit.rtol,
    );
    expect(await optimizer.droppedEdges()).toBe(unit.dropped.length);
  });
});
