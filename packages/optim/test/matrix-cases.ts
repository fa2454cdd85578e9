/**
 * The cases of `optimizers.json` for the rules of matrices and for the online convex suite: our transform and our optimizer of each.
 */
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
import { camelCase, type GoldenCase, goldenCases } from "./golden-cases.js";

/** One case at one precision. */
export interface MatrixCase extends GoldenCase {
  transform: () => GradientTransformation;
  make: <P extends Parameter>(
    params: Record<string, P>,
    shapes: Readonly<Record<string, readonly number[]>>,
  ) => Optimizer<P>;
}

type Hyper = GoldenCase["options"];

const renamed: Record<string, string> = { alg: "algorithm", ell: "sketchSize", adamLr: "adamLearningRate" };

/** Options and choices under our names. */
function optionsOf(hyper: Hyper): Hyper {
  return Object.fromEntries(
    Object.entries(hyper).map(([key, value]) => [
      renamed[key] ?? key,
      typeof value === "string" ? camelCase(value) : value,
    ]),
  );
}

type Methods = Record<string, (hyper: Hyper) => Pick<MatrixCase, "transform" | "make">>;

/** By the file's name of a method; the first arguments are its default learning rates. */
const methods: Methods = {
  shampoo: ({ learningRate = 1e-3, ...hyper }) => ({
    transform: () => shampoo(Number(learningRate), optionsOf(hyper)),
    make: (params, shapes) => new Shampoo(params, { learningRate: Number(learningRate), shapes, ...optionsOf(hyper) }),
  }),
  s_shampoo: ({ learningRate = 1e-3, ...hyper }) => ({
    transform: () => sketchy(Number(learningRate), optionsOf(hyper)),
    make: (params, shapes) => new Sketchy(params, { learningRate: Number(learningRate), shapes, ...optionsOf(hyper) }),
  }),
  oco: ({ learningRate = 0.1, ...hyper }) => {
    const options: Partial<OnlineConvexDirectionHyper> = { sketchSize: 4, ...optionsOf(hyper) };
    return {
      transform: () => onlineConvex(Number(learningRate), options),
      make: (params, shapes) => new OnlineConvex(params, { learningRate: Number(learningRate), shapes, ...options }),
    };
  },
  // In the precision of the case on every device.
  muon: ({ learningRate = 0.02, ...hyper }) => ({
    transform: () => muon(Number(learningRate), { productDType: "same", ...optionsOf(hyper) }),
    make: (params, shapes) =>
      new Muon(params, { learningRate: Number(learningRate), shapes, productDType: "same", ...optionsOf(hyper) }),
  }),
  soap: ({ learningRate = 3e-3, ...hyper }) => ({
    transform: () => soap(Number(learningRate), optionsOf(hyper)),
    make: (params, shapes) => new Soap(params, { learningRate: Number(learningRate), shapes, ...optionsOf(hyper) }),
  }),
};

/** Every case of these methods, in float64 and where the file allows it in float32. */
export function matrixCases(path: string): MatrixCase[] {
  return goldenCases(path, ({ optimizer }) => optimizer in methods).map((golden) => ({
    ...golden,
    ...methods[golden.optimizer]!(golden.options),
  }));
}
