/** Attention with documents, prefixes and log-sum-exps, and the merge of parts. */
import * as t from "../../src/index.js";
import type { OpCase } from "../op-cases.js";

const qkv = (T: number, S: number, H: number, K: number, D: number, Dv = D) => [
  [2, T, H, D],
  [2, S, K, D],
  [2, S, K, Dv],
];
/** The ids of both rows of the batch. */
const ids = (first: number[], second: number[]) =>
  t.tensor(Int32Array.from([...first, ...second]), { shape: [2, first.length] });

const masked = (name: string, inputs: number[][], options: (q: t.Tensor) => t.AttentionOptions): OpCase => ({
  name: `attention, ${name}`,
  inputs,
  compute: (q, k, v) => t.attention(q!, k!, v!, options(q!)),
});
/** Tables for the positions of `q`. */
const turns = (q: t.Tensor, channels: number) =>
  t.ropeTables(q.shape[1]!, channels, { dtype: q.dtype === "float64" ? "float64" : "float32" });

/** Outputs and log-sum-exps as one tensor: both carry gradients. */
function together({ out, lse }: t.AttentionPart): t.Tensor {
  const [B, T, H, Dv] = out.shape as [number, number, number, number];
  return t.concat([out.reshape([B, T, H * Dv]), lse.astype(out.dtype).transpose(1, 2)], 2);
}

export const attentionCases: OpCase[] = [
  masked("documents", qkv(6, 6, 2, 1, 4), () => ({ documents: ids([0, 0, 0, 1, 1, 2], [3, 3, 3, 3, -1, -1]) })),
  masked("interrupted documents and a query of none", qkv(4, 6, 2, 2, 4), () => ({
    documents: { q: ids([0, 1, 7, 1], [2, 2, 2, 2]), k: ids([0, 1, 0, 1, 1, 0], [2, 0, 2, 2, 0, 2]) },
    window: 5,
  })),
  masked("a prefix", qkv(6, 6, 2, 1, 4), () => ({ prefix: 3 })),
  masked("prefixes by query, documents, window and softcap", qkv(6, 6, 2, 1, 4), () => ({
    documents: ids([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]),
    prefix: ids([3, 3, 2, 1, 2, 0], [0, 2, 1, 1, 3, 4]),
    window: 3,
    softcap: 2,
  })),
  masked("turned by positions", qkv(5, 5, 2, 1, 6), (q) => ({ rope: turns(q, 6), window: 4 })),
  masked("some channels turned, values of another width", qkv(4, 4, 2, 2, 6, 3), (q) => ({
    rope: { ...turns(q, 4), interleaved: true },
  })),
  {
    name: "attention of one product's parts",
    inputs: [
      [2, 5, 6],
      [16, 6],
    ],
    compute(x, w) {
      const [q, k, v] = t.split(t.linear(x!, w!).reshape([2, 5, 4, 4]), [2, 1, 1], 2);
      return t.attention(q!, k!, v!, { rope: turns(q!, 4) });
    },
  },
  {
    name: "attentionWithLse",
    inputs: qkv(4, 6, 2, 1, 4, 3),
    compute: (q, k, v) => together(t.attentionWithLse(q!, k!, v!, { softcap: 3 })),
  },
  {
    name: "attentionWithLse, the log-sum-exp alone",
    inputs: qkv(4, 6, 2, 2, 4),
    compute: (q, k, v) => t.attentionWithLse(q!, k!, v!, { window: 3 }).lse,
  },
  {
    name: "mergeAttention",
    inputs: qkv(3, 7, 2, 1, 4),
    compute: (q, k, v) =>
      together(
        t.mergeAttention(
          [
            [0, 3],
            [3, 7],
          ].map(([from, to]) =>
            t.attentionWithLse(q!, k!.slice(1, from!, to), v!.slice(1, from!, to), { qOffset: 4 - from! }),
          ),
        ),
      ),
  },
];
