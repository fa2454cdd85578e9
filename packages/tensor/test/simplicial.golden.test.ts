import { readFileSync } from "node:fs";
import { engine } from "@llmeff/native";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import { scope, simplicialAttention, type Tensor, tensor, valueAndGrad, zeros } from "../src/index.js";
import { expectClose, type FloatDType, floatDTypes, largest } from "./compare.js";

interface GoldenArray {
  shape: number[];
  data: number[];
}

type Arrays = Record<"q" | "k1" | "k2" | "v1" | "v2" | "o" | "lse", GoldenArray>;
type Gradients = Partial<Record<"do" | "dq" | "dk1" | "dk2" | "dv1" | "dv2", GoldenArray>>;

interface Case extends Arrays, Gradients {
  name: string;
  /** Query heads, keys' rows and query rows. */
  B: number;
  Nq: number;
  Hq: number;
  w1: number;
  w2: number;
  scale: number;
  causal: boolean;
  form: "trilinear" | "determinant";
  k2_bias: number;
  v2_bias: number;
  q_offset: number;
}

const inputNames = ["q", "k1", "k2", "v1", "v2"] as const;

/** The tolerances that the file states; logits in the hundreds amplify the rounding of a float32 logit. */
function check(
  actual: ArrayLike<number>,
  { data }: GoldenArray,
  dtype: FloatDType,
  { name }: Case,
  label: string,
): void {
  const big = name === "big_logits" || name === "huge_logits";
  const tolerance =
    dtype === "float64" ? { atol: 1e-8, rtol: 1e-8 } : { atol: (big ? 2e-3 : 2e-5) * (1 + largest(data)) };
  expectClose(actual, data, tolerance, `${name} ${dtype} ${label}`);
}

function optionsOf(golden: Case) {
  const { w1, w2, scale, causal, form, k2_bias: k2Bias, v2_bias: v2Bias, q_offset: qOffset } = golden;
  return { ...(w1 > 0 && { w1 }), ...(w2 > 0 && { w2 }), scale, causal, form, k2Bias, v2Bias, qOffset };
}

/** The log of the sum of exponentials, which only the engine's kernel gives. */
function logSumExp(golden: Case, inputs: readonly Tensor[], dtype: FloatDType): ArrayLike<number> {
  const { B, Hq, Nq, scale, causal, w1, w2, k2_bias, v2_bias, q_offset, form } = golden;
  return scope(() => {
    const out = zeros(golden.o.shape, { dtype });
    const lse = zeros([B, Hq, Nq], { dtype });
    const [q, k1, k2, v1, v2] = inputs.map((x) => x.handle) as [number, number, number, number, number];
    const determinant = form === "determinant";
    engine().op.simplicialAttention(
      q,
      k1,
      k2,
      v1,
      v2,
      scale,
      causal,
      w1,
      w2,
      k2_bias,
      v2_bias,
      q_offset,
      0,
      0,
      determinant,
      out.handle,
      lse.handle,
    );
    return lse.dataSync();
  });
}

describeGolden("simplicial.json", (path) => {
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: Case[] };

  it("has cases", () => {
    expect(cases.length).toBeGreaterThan(0);
  });

  for (const golden of cases) {
    for (const dtype of floatDTypes) {
      it(`${golden.name} in ${dtype}`, () => {
        scope(() => {
          const inputs = inputNames.map((name) => tensor(golden[name].data, { dtype }).reshape(golden[name].shape));
          const compute = ([q, k1, k2, v1, v2]: readonly Tensor[]) =>
            simplicialAttention(q!, k1!, k2!, v1!, v2!, optionsOf(golden));
          const upstream = golden.do;
          if (upstream === undefined) {
            check(compute(inputs).dataSync(), golden.o, dtype, golden, "o");
          } else {
            const dout = tensor(upstream.data, { dtype }).reshape(upstream.shape);
            const { aux, grads } = valueAndGrad((xs: readonly Tensor[]) => {
              const out = compute(xs);
              return { loss: out.mul(dout).sum(), aux: out };
            }, inputs);
            check(aux.dataSync(), golden.o, dtype, golden, "o");
            for (const [i, name] of inputNames.entries()) {
              check(grads[i]!.dataSync(), golden[`d${name}`]!, dtype, golden, `d${name}`);
            }
          }
          check(logSumExp(golden, inputs, dtype), golden.lse, dtype, golden, "lse");
        });
      });
    }
  }
});
