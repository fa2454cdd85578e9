import { type Tensor, zeros } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import {
  Adafactor,
  Adagrad,
  AdamW,
  estimateCost,
  Lamb,
  Lion,
  Muon,
  NAdamW,
  OnlineConvex,
  type Optimizer,
  PsgdKron,
  RfdSon,
  RMSprop,
  type RuleCostOptions,
  type RuleName,
  ScheduleFreeAdamW,
  SGD,
  Shampoo,
  Sketchy,
  SM3,
  Soap,
  Sonew,
} from "./index.js";

const shapes = [[6, 4], [5], [3, 2, 7], [1], [2, 1, 3, 3]];
type Make = (params: Record<string, Tensor>, options: object) => Optimizer<Tensor>;

/** Every optimizer that has an estimate, in each form of its state. */
const classes: [RuleName, Make, RuleCostOptions[RuleName]][] = [
  ["adamw", (p, o) => new AdamW(p, o), {}],
  ["adamw", (p, o) => new AdamW(p, o), { amsgrad: true }],
  ["sgd", (p, o) => new SGD(p, o), {}],
  ["sgd", (p, o) => new SGD(p, o), { momentum: 0.9 }],
  ["adagrad", (p, o) => new Adagrad(p, o), {}],
  ["rmsprop", (p, o) => new RMSprop(p, o), {}],
  ["rmsprop", (p, o) => new RMSprop(p, o), { centered: true, momentum: 0.9 }],
  ["nadamw", (p, o) => new NAdamW(p, o), {}],
  ["lion", (p, o) => new Lion(p, o), {}],
  ["lamb", (p, o) => new Lamb(p, o), {}],
  ["scheduleFreeAdamW", (p, o) => new ScheduleFreeAdamW(p, o), {}],
  ["adafactor", (p, o) => new Adafactor(p, o), {}],
  ["adafactor", (p, o) => new Adafactor(p, o), { beta1: 0.9, minFactoredDim: 4 }],
  ["sm3", (p, o) => new SM3(p, o), {}],
  ["sonew", (p, o) => new Sonew(p, o), {}],
  ["sonew", (p, o) => new Sonew(p, o), { graft: "rmspropNorm" }],
  ["muon", (p, o) => new Muon(p, o), {}],
  ["shampoo", (p, o) => new Shampoo(p, o), {}],
  ["shampoo", (p, o) => new Shampoo(p, o), { mergeDims: 4, blockSize: 3, graft: "none" }],
  ["shampoo", (p, o) => new Shampoo(p, o), { mergeDims: 4, skipDimGt: 6, graft: "sgd", momentum: 0 }],
  ["sketchy", (p, o) => new Sketchy(p, o), { mergeDims: 4, rank: 3 }],
  ["sketchy", (p, o) => new Sketchy(p, o), { mergeDims: 4, rank: 2, blockSize: 4, skipRank1: false }],
  ["soap", (p, o) => new Soap(p, o), {}],
  ["soap", (p, o) => new Soap(p, o), { maxPrecondDim: 4 }],
  ["psgdKron", (p, o) => new PsgdKron(p, o), {}],
  ["psgdKron", (p, o) => new PsgdKron(p, o), { maxSkew: 2, maxSize: 5, momentum: 0 }],
  ["rfdSon", (p, o) => new RfdSon(p, o), { rank: 3 }],
  ...(["sAdagrad", "adagrad", "ogd"] as const).map((algorithm): [RuleName, Make, RuleCostOptions[RuleName]] => [
    "onlineConvex",
    (p, o) => new OnlineConvex(p, o),
    { algorithm, sketchSize: 4 },
  ]),
];

describe("estimateCost", () => {
  it.each(classes)("%s: the state has the bytes of the optimizer (%#)", (rule, make, options) => {
    for (const dtype of ["float32", "float64", "bfloat16"] as const) {
      const params = Object.fromEntries(shapes.map((shape, i) => [`p${i}`, zeros(shape, { dtype })]));
      const optimizer = make(params, options);
      expect(estimateCost(rule, shapes, { ...options, dtype }).stateBytes, dtype).toBe(optimizer.stateBytes());
      optimizer.dispose();
    }
  });

  it.each<[RuleName, RuleCostOptions[RuleName], floats: number, bytes: number]>([
    // Numbers of state and bytes of memory traffic a float32 parameter, from the table of the method's description.
    ["sgd", {}, 0, 12],
    ["sgd", { momentum: 0.9 }, 1, 20],
    ["lion", {}, 1, 20],
    ["rmsprop", {}, 1, 20],
    ["adagrad", {}, 1, 20],
    ["adam", {}, 2, 28],
    ["nadamw", {}, 2, 28],
    ["scheduleFreeAdamW", {}, 2, 28],
    ["lamb", {}, 2, 40],
    ["sonew", { band: 0, graft: "none" }, 2, 28],
    ["sonew", { band: 1, graft: "none" }, 3, 36],
    ["sonew", { band: 4, graft: "none" }, 6, 60],
    ["sonew", { band: 10, graft: "none" }, 12, 108],
    ["sonew", {}, 3, 48], // measured: its state is read twice
  ])("%s %j has %d numbers of state and moves %d bytes a parameter", (rule, options, floats, bytes) => {
    const { params, stateBytes, trafficBytes } = estimateCost(rule, [[30, 20], [400]], options);
    expect([params, stateBytes, trafficBytes]).toEqual([1000, 4000 * floats, 1000 * bytes]);
  });

  it("counts rows and columns of Adafactor and SM3", () => {
    const { stateBytes, trafficBytes } = estimateCost("adafactor", [[30, 20]]);
    expect([stateBytes, trafficBytes]).toEqual([4 * 50, 600 * 24 + 4 * 2 * 50]);
    expect(estimateCost("adafactor", [[30, 20]], { minFactoredDim: 21 }).stateBytes).toBe(4 * 600);
    expect(estimateCost("sm3", [[30, 20]]).stateBytes).toBe(4 * 650);
  });

  it("has the formulas of the matrix methods", () => {
    const [m, n] = [64, 96];
    const adam = 2 * m * n;
    const unmerged = { mergeDims: 64, rootEvery: 4 };
    const shampoo = estimateCost("shampoo", [[m, n]], unmerged);
    expect(shampoo.stateBytes).toBe(4 * (2 * (m * m + n * n) + adam));
    const products = 2 * m * n * (m + n);
    expect(shampoo.flops).toBe(2 * products + (25 * (m ** 3 + n ** 3)) / 4 + 16 * m * n);
    const sketchy = estimateCost("sketchy", [[m, n]], { mergeDims: 64, rank: 8 });
    expect(sketchy.stateBytes).toBe(4 * ((m + n + 2) * 8 + 2 + adam));
    expect(estimateCost("soap", [[m, n]]).stateBytes).toBe(4 * (adam + 2 * (m * m + n * n)));
    const muon = estimateCost("muon", [[m, n]]);
    expect(muon.stateBytes).toBe(4 * m * n);
    expect(muon.flops).toBe(20 * m * m * n + 10 * m ** 3 + 8 * m * n);
    // A wide matrix costs as much as the tall one; vectors are AdamW's.
    expect(estimateCost("muon", [[n, m]])).toEqual(muon);
    expect(estimateCost("muon", [[m]])).toEqual(estimateCost("adamw", [[m]]));
  });

  it("cuts and merges axes as Shampoo does", () => {
    const bytes = (shape: number[], options: object) =>
      estimateCost("shampoo", [shape], { momentum: 0, graft: "none", ...options }).stateBytes;
    expect(bytes([20, 30], {})).toBe(4 * 2 * 600 ** 2); // merged to one axis
    expect(bytes([2000, 3], { mergeDims: 1 })).toBe(4 * 2 * (1024 ** 2 + 976 ** 2 + 2 * 9));
    expect(bytes([1, 1], {})).toBe(0);
    expect(estimateCost("shampoo", [[5000, 8]], { momentum: 0 }).stateBytes).toBe(4 * 40_000); // too long: the graft alone
  });

  it("adds masters of narrow parameters, and the pass for the norm", () => {
    const [wide, narrow] = (["float32", "bfloat16"] as const).map((dtype) =>
      estimateCost("adamw", [[1000]], { dtype }),
    );
    expect(narrow!.stateBytes - wide!.stateBytes).toBe(4000);
    expect(narrow!.trafficBytes).toBe(wide!.trafficBytes); // 2 bytes less to read of the gradient, 2 more to write
    const measured = estimateCost("adamw", [[1000]], { measuresNorm: true });
    expect([measured.trafficBytes - wide!.trafficBytes, measured.flops - wide!.flops]).toEqual([4000, 2000]);
  });

  it("refuses what it doesn't know", () => {
    expect(() => estimateCost("adamax" as never, [[1]])).toThrow("[estimateCost] rule must be one of");
    expect(() => estimateCost("sgd", [[1]], { dtype: "int8" as never })).toThrow("dtype must be one of");
    expect(() => estimateCost("sgd", [[1], [2, 0]])).toThrow("shapes[1] must have positive integers; received 0.");
  });
});
