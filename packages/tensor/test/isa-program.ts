/** Computes a table of operations and odd sizes on the instruction set that LLMEFF_CPU_ISA names, and prints every number. */
import { writeFileSync } from "node:fs";
import type { Tensor } from "../src/index.js";
import * as t from "../src/index.js";
import { sample, sampleIds } from "./numbers.js";
import { opCases } from "./op-cases.js";

export interface IsaResult {
  name: string;
  /** Terms added up for one number. */
  terms: number;
  values: number[];
}

/** Operations to be called by name. */
const byName = { ...t };

const results: IsaResult[] = [];

function note(name: string, terms: number, tensors: readonly Tensor[]): void {
  results.push({ name, terms, values: tensors.flatMap((x) => Array.from(x.dataSync())) });
}

/** Sizes about the widths of vectors and the edges of tiles. */
const edges = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129];

for (const dtype of ["float32", "float64"] as const) {
  const of = (shape: number[], seed: number, low = -1, high = 1) => sample(shape, seed, { dtype, low, high });
  const both = (name: string, terms: number, fn: (...xs: Tensor[]) => Tensor, ...inputs: Tensor[]) => {
    const { aux, grads } = t.valueAndGrad((xs: readonly Tensor[]) => {
      const out = fn(...xs);
      return { loss: out.mul(of([...out.shape], 77)).sum(), aux: out };
    }, inputs);
    note(`${name} ${dtype}`, terms, [aux as Tensor, ...grads]);
  };
  t.scope(() => {
    for (const { name, inputs, range = [-1, 1], seed = 7, terms = 64, compute } of opCases) {
      both(name, terms, compute, ...inputs.map((shape, i) => of(shape, seed + i, ...range)));
    }
    for (const n of edges) {
      const x = of([3, n], n, -4, 4);
      for (const name of [
        "exp",
        "expm1",
        "tanh",
        "erf",
        "sigmoid",
        "softplus",
        "silu",
        "gelu",
        "sin",
        "cos",
        "relu",
      ] as const)
        both(`${name} of ${n}`, 1, (y) => byName[name](y), x);
      for (const name of ["log", "log1p", "sqrt", "rsqrt"] as const)
        both(`${name} of ${n}`, 1, (y) => byName[name](y), x.square().add(0.1));
      for (const name of ["sum", "mean", "max", "min", "prod", "variance", "logSumExp"] as const)
        for (const axis of [0, 1]) both(`${name} of ${n}, axis ${axis}`, 3 * n, (y) => byName[name](y, { axis }), x);
      both(`add of ${n}`, 1, (a, b) => a.add(b), x, of([n], 3));
      both(`mul of columns of ${n}`, 3 * n, (a, b) => a.T.mul(b), x, of([3], 3));
      both(`softmax of ${n}`, n, (y) => t.softmax(y), x);
      both(`logSoftmax of columns of ${n}`, n, (y) => t.logSoftmax(y, { axis: 0 }), x);
      both(`rmsNorm of ${n}`, n, (y, w) => t.rmsNorm(y, w), x, of([n], 4));
      both(`swiglu of ${n}`, 1, t.swiglu, x, of([3, n], 5));
      for (const axis of [0, 1]) both(`cumsum of ${n}, axis ${axis}`, 3 * n, (y) => t.cumsum(y, axis), x);
      both(`sort of ${n}`, 1, (y) => t.sort(y).values, x);
      both(`topK of ${16 * n}`, 1, (y) => t.topK(t.tile(y, [1, 16]), n).values, x);
      both(`indexSelect of ${n}`, 5, (y) => t.indexSelect(y, 0, sampleIds([5], n, 3)), x);
      both(`gather of ${n}`, n, (y) => t.gather(y, 1, sampleIds([3, n], n, n)), x);
      for (const axis of [0, 1]) note(`argMax of ${n}, axis ${axis} ${dtype}`, 0, [t.argMax(x, { axis })]);
      both(`crossEntropy of ${n}`, n, (z) => t.crossEntropy(z, sampleIds([3], n, n), { labelSmoothing: 0.1 }), x);
      both(
        `linearCrossEntropy of ${n}`,
        3 * n,
        (h, w) => t.linearCrossEntropy(h, w, sampleIds([n], n, 5)),
        of([n, 3], 6),
        of([5, 3], 7),
      );
      for (const m of [1, 5, 17]) {
        both(`matmul of [${m}, ${n}] and [${n}, ${m + 1}]`, n, t.matmul, of([m, n], 8), of([n, m + 1], 9));
        both(`matmul of [${n}, ${m}] and [${m}, ${n}]`, n, t.matmul, of([n, m], 8), of([m, n], 9));
        both(`matmul of transposed [${m}, ${n}]`, n, (a, b) => t.matmul(a.T, b.T), of([n, m], 8), of([m, n], 9));
      }
      both(
        `attention of ${n}`,
        4 * n,
        (q, k, v) => t.attention(q, k, v, { window: 40 }),
        of([1, n, 2, 5], 1),
        of([1, n, 1, 5], 2),
        of([1, n, 1, 3], 3),
      );
      both(
        `attention of head size ${n}`,
        n,
        (q, k, v) => t.attention(q, k, v),
        of([1, 3, 2, n], 1),
        of([1, 3, 1, n], 2),
        of([1, 3, 1, n], 3),
      );
      const five = (N: number, D: number) => [
        of([1, N, 2, D], 1),
        ...[2, 3, 4, 5].map((seed) => of([1, N, 1, D], seed)),
      ];
      both(
        `simplicialAttention of ${n}`,
        40 * n,
        (q, a, b, c, d) => t.simplicialAttention(q, a!, b!, c!, d!, { w1: 33, w2: 9 }),
        ...five(n, 5),
      );
      both(
        `simplicialAttention of head size ${n}`,
        n,
        (q, a, b, c, d) => t.simplicialAttention(q, a!, b!, c!, d!),
        ...five(3, n),
      );
      note(`globalNorm of ${n} ${dtype}`, n, [t.globalNorm([x.T, x])]);
      note(`random of ${n} ${dtype}`, 1, [
        t.randomUniform({ seed: n }, [n], { dtype }),
        t.randomNormal({ seed: n }, [n], { dtype }),
      ]);
      const cast = x.astype("bfloat16").astype(dtype);
      note(`casts of ${n} ${dtype}`, 0, [
        cast,
        x.astype("float16").astype(dtype),
        x.astype("int32").astype(dtype),
        t.greater(x, 0).astype(dtype),
      ]);
    }
  });
}
writeFileSync(
  process.argv[2]!,
  JSON.stringify(results, (_, x) => (typeof x === "number" && !Number.isFinite(x) ? String(x) : x)),
);
