import { describe, expect, it } from "vitest";
import { expectClose } from "../../test/compare.js";
import * as t from "../index.js";

const normal = (seed: number, shape: number[], dtype: t.DType = "float32") =>
  t.randomNormal({ seed }, shape).astype(dtype);
const int32 = (...values: number[]) => t.tensor(Int32Array.from(values));

interface Shape {
  kept: readonly number[];
  heads: readonly [queries: number, keys: number];
  D: number;
  room?: number;
}

/** New rows, and memory of sequences with so many kept ones. */
function problem({ kept, heads: [H, K], D, room = Math.max(...kept) + 3 }: Shape, dtype: t.DType = "float32") {
  const N = kept.length;
  const memory = (seed: number) => kept.map((_, i) => normal(seed + i, [1, room, K, D], dtype));
  return {
    q: normal(1, [1, N, H, D], dtype),
    k: normal(2, [1, N, K, D], dtype),
    v: normal(3, [1, N, K, D], dtype),
    keys: memory(10),
    values: memory(100),
  };
}

/** The same by the operations that are told the lengths. */
function expected(
  { q, k, v, keys, values }: ReturnType<typeof problem>,
  kept: readonly number[],
  { rope, ...options }: t.DecodeAttentionOptions,
) {
  const turned = (x: t.Tensor) => (rope === undefined ? x : t.rope(x, rope.cos, rope.sin, rope));
  const sequences = kept.map((n, i) => ({ length: 1, keys: keys[i]!.clone(), values: values[i]!.clone(), kept: n }));
  return { out: t.cachedAttention(turned(q), turned(k), v, sequences, options), sequences };
}

const numbers = (x: t.Tensor) => x.astype("float64").dataSync() as Float64Array;
const shapes: readonly Shape[] = [
  { kept: [5], heads: [1, 1], D: 8 },
  { kept: [0, 1, 40], heads: [4, 2], D: 16 },
  { kept: [300, 17], heads: [6, 2], D: 64, room: 512 },
  { kept: [1500], heads: [2, 1], D: 128, room: 2048 },
  { kept: [9, 70], heads: [2, 2], D: 256 },
  { kept: [33, 2], heads: [3, 1], D: 6 },
];

describe("decodeAttention", () => {
  it.each(shapes)("is cachedAttention of one position each: $kept kept, heads $heads of $D", (shape) => {
    const { kept, D } = shape;
    for (const dtype of ["float32", "bfloat16"] as const) {
      const tables = t.ropeTables(Math.max(...kept) + 1, D);
      const [cos, sin] = [tables.cos, tables.sin].map((table) => t.embedding(table, int32(...kept))) as [
        t.Tensor,
        t.Tensor,
      ];
      for (const options of [
        {},
        { rope: { cos, sin } },
        { rope: { cos, sin, interleaved: true }, window: 7, softcap: 3, scale: 0.3 },
      ]) {
        const x = problem(shape, dtype);
        const wanted = expected(x, kept, options);
        const memories = x.keys.map((keys, i) => ({ keys, values: x.values[i]! }));
        const out = t.decodeAttention(x.q, x.k, x.v, memories, int32(...kept), options);
        expect(out.shape).toEqual(x.q.shape);
        // Of values of about 1: rounding of the results, and of the logits that the sums are weighted by.
        const atol = dtype === "float32" ? 1e-4 : 0.05;
        const exact = out.device === "cpu" && dtype === "float32";
        expectClose(numbers(out), numbers(wanted.out), { atol: exact ? 0 : atol });
        for (const [i, { keys, values }] of wanted.sequences.entries()) {
          expectClose(numbers(x.keys[i]!), numbers(keys), { atol: dtype === "float32" ? 1e-6 : 0.02 });
          expectClose(numbers(x.values[i]!), numbers(values), { atol: 0 });
        }
      }
    }
  });

  it("takes rows of a product as they lie, and memory that begins later", () => {
    const [kept, H, K, D] = [[20, 31], 4, 2, 16];
    const x = problem({ kept, heads: [H, K], D });
    const together = t.concat([x.q, x.k, x.v], 2);
    const [q, k, v] = t.split(together, [H, K, K], 2) as [t.Tensor, t.Tensor, t.Tensor];
    const wanted = expected(x, kept, {}).out;
    const memories = x.keys.map((keys, i) => ({ keys, values: x.values[i]!, offset: 100 * i }));
    const out = t.decodeAttention(q, k, v, memories, int32(20, 131));
    expectClose(numbers(out), numbers(wanted), { atol: 1e-5 });
  });

  it("goes on in a captured step as the positions change", () => {
    const shape = { kept: [3, 0], heads: [2, 1], D: 16, room: 40 } as const;
    const [captured, plain] = [problem(shape), problem(shape)];
    const { keys, values } = captured;
    const memories = keys.map((each, i) => ({ keys: each, values: values[i]! }));
    using step = t.captureStep(
      ({ positions, q }) => t.decodeAttention(q, captured.k, captured.v, memories, positions),
      { inputs: { positions: { shape: [2], dtype: "int32" }, q: captured.q }, warmup: 1 },
    );
    for (let i = 0; i < 30; i++) {
      const q = normal(200 + i, [1, 2, 2, 16]);
      const out = step({ positions: Int32Array.of(3 + i, i), q });
      const own = plain.keys.map((each, j) => ({ keys: each, values: plain.values[j]! }));
      const wanted = t.decodeAttention(q, plain.k, plain.v, own, int32(3 + i, i));
      expectClose(numbers(out), numbers(wanted), { atol: 0 });
    }
    expect(step.mode).toBe("captured");
  });

  it("refuses positions without a row, gradients, and shapes that don't fit", () => {
    const x = problem({ kept: [3], heads: [2, 1], D: 16, room: 5 });
    const memory = { keys: x.keys[0]!, values: x.values[0]! };
    const before = numbers(memory.keys.clone());
    expect(() => t.decodeAttention(x.q, x.k, x.v, [memory], int32(2)).dataSync()).not.toThrow();
    expect(() => t.valueAndGrad((p) => t.decodeAttention(p.q, x.k, x.v, [memory], int32(2)).sum(), { q: x.q })).toThrow(
      "[decodeAttention] it changes its memory in place and has no gradient",
    );
    const wrong: [() => t.Tensor, string][] = [
      [() => t.decodeAttention(x.q, x.k, x.v, [], int32(2)), "for the 0 memories"],
      [() => t.decodeAttention(x.q, x.k, x.v, [memory], int32(2, 3)), "positions must be [1]; received [2]"],
      [() => t.decodeAttention(x.q, x.k, x.v, [memory], t.zeros([1])), "positions must be int32"],
      [
        () => t.decodeAttention(x.q, x.k, x.v, [{ ...memory, keys: t.zeros([1, 5, 2, 16]) }], int32(2)),
        "memories[0].keys must be contiguous [1, S, 1, 16]",
      ],
    ];
    for (const [call, message] of wrong) expect(call).toThrow(message);
    const far = () => t.decodeAttention(x.q, x.k, x.v, [memory], int32(5)).dataSync();
    expect(far).toThrow("position 5 of sequence 0 is outside its memory");
    expect(before).toHaveLength(5 * 16);
  });
});
