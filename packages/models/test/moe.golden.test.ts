/** The mixtures of experts of models.json: results, choices, losses and all gradients. */
import { readFileSync } from "node:fs";
import { add, mul, scope, sum, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import {
  expertChoice,
  type MixtureOptions,
  type MixtureResult,
  mixtureOfExperts,
  nextRouterBias,
  type Routing,
} from "../src/index.js";

interface Values {
  shape: number[];
  data: number[];
}

interface MoeCase {
  id: string;
  op: "moe" | "moe_expert_choice";
  params: {
    k: number;
    capacity: number | null;
    norm_topk: boolean;
    score?: "softmax" | "sigmoid";
    bias?: Values;
    routed_scale?: number;
    aux_coef?: number;
    z_coef?: number;
  };
  inputs: Record<"x" | "router" | "wg" | "wu" | "wd" | "dy", Values>;
  outputs: Record<string, Values | number>;
  tol: { f64: number; f32: number };
}

type DType = "float64" | "float32";

const weightNames = { router: "router", gate: "wg", up: "wu", down: "wd" } as const;

function comparison(golden: MoeCase, dtype: DType) {
  const tolerance = dtype === "float64" ? golden.tol.f64 : golden.tol.f32;
  return (name: string, actual: Tensor) => {
    const output = golden.outputs[name]!;
    const expected = typeof output === "number" ? [output] : output.data;
    const got = Array.from(actual.dataSync(), Number);
    expect(got, name).toHaveLength(expected.length);
    const limit = actual.dtype === "int32" ? 0 : tolerance;
    for (const [i, want] of expected.entries()) {
      expect(Math.abs(got[i]! - want), `${name}[${i}]: ${got[i]} against ${want}`).toBeLessThanOrEqual(
        limit * (1 + Math.abs(want)),
      );
    }
  };
}

function inputsOf({ inputs }: MoeCase, dtype: DType) {
  const read = ({ shape, data }: Values) => tensor(Float64Array.from(data), { shape, dtype });
  const weights = Object.fromEntries(Object.entries(weightNames).map(([ours, theirs]) => [ours, read(inputs[theirs])]));
  return { x: read(inputs.x), weights: weights as Record<keyof typeof weightNames, Tensor>, read };
}

function tokenChoice(golden: MoeCase, dtype: DType): void {
  const { params, inputs, outputs } = golden;
  const compare = comparison(golden, dtype);
  const { x, weights, read } = inputsOf(golden, dtype);
  const { aux_coef = 0, z_coef = 0, bias, routed_scale, score, capacity } = params;
  const options: MixtureOptions = {
    topK: params.k,
    normTopK: params.norm_topk,
    ...(score === undefined ? {} : { score }),
    ...(routed_scale === undefined ? {} : { routedScale: routed_scale }),
    ...(capacity === null ? {} : { capacity }),
  };
  const extra = bias === undefined ? {} : { bias: read(bias) };
  const dy = read(inputs.dy);
  const inputTensors: Record<string, Tensor> = { x, ...weights };
  const { aux, grads } = valueAndGrad((p: Record<string, Tensor>) => {
    const { x: rows, ...matrices } = p;
    const { routing, ...rest } = mixtureOfExperts(rows!, { ...(matrices as typeof weights), ...extra }, options);
    const losses = add(mul(routing.aux, aux_coef), mul(routing.zLoss, z_coef));
    return { loss: add(sum(mul(rest.y, dy)), losses), aux: { ...rest, ...routing } };
  }, inputTensors);
  const result = aux as unknown as Omit<MixtureResult, "routing"> & Routing;
  compare("y", result.y);
  compare("dx", grads.x!);
  for (const [ours, theirs] of Object.entries(weightNames)) compare(`d${theirs}`, grads[ours]!);
  compare("idx", result.indices);
  compare("gate", result.gates);
  compare("load", result.load);
  compare("aux", result.aux);
  compare("zloss", result.zLoss);
  compare("dropped", result.dropped);
  const places = Array.from(result.slots.dataSync(), (slot) =>
    slot < (capacity ?? Number.POSITIVE_INFINITY) ? slot : -1,
  );
  expect(places, "slot").toEqual((outputs.slot as Values).data);
  if (outputs.bias_next !== undefined) compare("bias_next", nextRouterBias(extra.bias!, result.load));
}

function choiceOfExperts(golden: MoeCase, dtype: DType): void {
  const compare = comparison(golden, dtype);
  const { x, weights } = inputsOf(golden, dtype);
  const { y, picks, scores } = expertChoice(x, weights, { capacity: golden.params.capacity! });
  compare("y", y);
  compare("picks", picks);
  compare("scores", scores);
}

describeGolden("models.json", (path) => {
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: MoeCase[] };
  const mine = cases.filter(({ op }) => op === "moe" || op === "moe_expert_choice");

  it("has mixtures of both kinds", () => {
    expect(new Set(mine.map(({ op }) => op)).size).toBe(2);
  });

  for (const golden of mine) {
    const run = golden.op === "moe" ? tokenChoice : choiceOfExperts;
    it(`${golden.id} in float64`, () => scope(() => run(golden, "float64")));
    it(`${golden.id} in float32`, () => scope(() => run(golden, "float32")));
  }
});
