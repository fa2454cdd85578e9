/** What is no object of options, given to everything that takes some. */
import { OptionError } from "@llmeff/native";
import { describe, expect, it } from "vitest";
import * as optim from "./index.js";

type Make = (options: never) => unknown;
const params = () => ({ w: Float32Array.of(1) });

const classes = Object.entries(optim).flatMap(([name, value]): [string, Make][] => {
  const isOptimizer = typeof value === "function" && "loadStateDict" in (value.prototype ?? {});
  if (!isOptimizer || name === "TransformOptimizer" || name === "RoutedOptimizer") return [];
  const Class = value as unknown as new (params: object, options: never) => unknown;
  return [[name, (options) => new Class(params(), options)]];
});

const inner = optim.sgd(0.1);
const functions: Record<string, Make> = {
  adafactor: (options) => optim.adafactor(0.1, options),
  adagrad: (options) => optim.adagrad(0.1, options),
  adam: (options) => optim.adam(0.1, options),
  adamw: (options) => optim.adamw(0.1, options),
  lamb: (options) => optim.lamb(0.1, options),
  lion: (options) => optim.lion(0.1, options),
  muon: (options) => optim.muon(0.1, options),
  nadamw: (options) => optim.nadamw(0.1, options),
  onlineConvex: (options) => optim.onlineConvex(0.1, options),
  psgdKron: (options) => optim.psgdKron(0.1, options),
  rfdSon: (options) => optim.rfdSon(0.1, options),
  rmsprop: (options) => optim.rmsprop(0.1, options),
  scheduleFreeAdamw: (options) => optim.scheduleFreeAdamw(0.1, options),
  sgd: (options) => optim.sgd(0.1, options),
  shampoo: (options) => optim.shampoo(0.1, options),
  sketchy: (options) => optim.sketchy(0.1, options),
  sm3: (options) => optim.sm3(0.1, options),
  soap: (options) => optim.soap(0.1, options),
  sonew: (options) => optim.sonew(0.1, options),
  ema: (options) => optim.ema(0.9, options),
  lookahead: (options) => optim.lookahead(inner, options),
  scaleByAdam: (options) => optim.scaleByAdam(options),
  trace: (options) => optim.trace(options),
  cosine: (options) => optim.cosine(0.1, 10, options),
  linear: (options) => optim.linear(0.1, 10, options),
  wsd: (options) => optim.wsd(0.1, 10, options),
  polynomial: (options) => optim.polynomial(0.1, 10, options),
  exponential: (options) => optim.exponential(0.1, 0.5, options),
  cosineRestarts: (options) => optim.cosineRestarts(0.1, 10, options),
};

describe.each([...classes, ...Object.entries(functions)])("%s", (_name, make) => {
  it.each([
    [null, "null"],
    [3, "3"],
    [[], "[]"],
    ["adam", '"adam"'],
  ])("refuses %j for options", (options, received) => {
    const act = () => make(options as never);
    expect(act).toThrow(OptionError);
    expect(act).toThrow(`] options must be an object; received ${received}.`);
  });
});

it("knows the optimizers", () => {
  expect(classes.length).toBeGreaterThanOrEqual(20);
});
