/**
 * The cases of `optimizers.json` for the rules of matrices and for the online convex suite: our transform and our optimizer of each.
 */
import { readFileSync } from "node:fs";
import {
  type GradientTransformation,
  Muon,
  muon,
  OnlineConvex,
  type OnlineConvexDirectionHyper,
  type Optimizer,
  onlineConvex,
  type Parameter,
  Shampoo,
  Sketchy,
  Soap,
  shampoo,
  sketchy,
  soap,
} from "../src/index.js";
import { camelCase, type FloatDType, type GoldenFile, type GoldenProblem, type RawCase } from "./golden-cases.js";

/** One case at one precision. */
export interface MatrixCase {
  id: string;
  dtype: FloatDType;
  problem: GoldenProblem;
  expected: Record<string, number[][]>;
  tolerance: number;
  transform: () => GradientTransformation;
  optimizer: <P extends Parameter>(
    params: Record<string, P>,
    shapes: Readonly<Record<string, readonly number[]>>,
  ) => Optimizer<P>;
}

type Hyper = Record<string, number | string | boolean>;

const renamed: Record<string, string> = { alg: "algorithm", ell: "sketchSize", adamLr: "adamLearningRate" };

/** Options under our names, without the learning rate. */
function optionsOf(hyper: Hyper): Hyper {
  return Object.fromEntries(
    Object.entries(hyper)
      .filter(([key]) => key !== "lr")
      .map(([key, value]) => {
        const name = camelCase(key);
        return [renamed[name] ?? name, typeof value === "string" ? camelCase(value) : value];
      }),
  );
}

type Methods = Record<string, (hyper: Hyper) => Pick<MatrixCase, "transform" | "optimizer">>;

/** By the file's name of a method; the first arguments are its default learning rates. */
const methods: Methods = {
  shampoo: ({ lr = 1e-3, ...hyper }) => ({
    transform: () => shampoo(Number(lr), optionsOf(hyper)),
    optimizer: (params, shapes) => new Shampoo(params, { learningRate: Number(lr), shapes, ...optionsOf(hyper) }),
  }),
  s_shampoo: ({ lr = 1e-3, ...hyper }) => ({
    transform: () => sketchy(Number(lr), optionsOf(hyper)),
    optimizer: (params, shapes) => new Sketchy(params, { learningRate: Number(lr), shapes, ...optionsOf(hyper) }),
  }),
  oco: ({ lr = 0.1, ...hyper }) => {
    const options: Partial<OnlineConvexDirectionHyper> = { sketchSize: 4, ...optionsOf(hyper) };
    return {
      transform: () => onlineConvex(Number(lr), options),
      optimizer: (params, shapes) => new OnlineConvex(params, { learningRate: Number(lr), shapes, ...options }),
    };
  },
  // In the precision of the case on every device.
  muon: ({ lr = 0.02, ...hyper }) => ({
    transform: () => muon(Number(lr), { productDType: "same", ...optionsOf(hyper) }),
    optimizer: (params, shapes) =>
      new Muon(params, { learningRate: Number(lr), shapes, productDType: "same", ...optionsOf(hyper) }),
  }),
  soap: ({ lr = 3e-3, ...hyper }) => ({
    transform: () => soap(Number(lr), optionsOf(hyper)),
    optimizer: (params, shapes) => new Soap(params, { learningRate: Number(lr), shapes, ...optionsOf(hyper) }),
  }),
};

/** Every case of these methods, in float64 and where the file allows it in float32. */
export function matrixCases(path: string): MatrixCase[] {
  const file = JSON.parse(readFileSync(path, "utf8")) as GoldenFile;
  const caseOf = (raw: RawCase, dtype: FloatDType, tolerance: number | null): MatrixCase[] => {
    const method = methods[raw.optimizer];
    if (method === undefined || tolerance === null) return [];
    const problem = file.problems[raw.problem]!;
    return [{ id: `${raw.id} ${dtype}`, dtype, problem, expected: raw.params, tolerance, ...method(raw.hyper) }];
  };
  return file.cases.flatMap((raw) => [...caseOf(raw, "float64", raw.rtol64), ...caseOf(raw, "float32", raw.rtol32)]);
}
