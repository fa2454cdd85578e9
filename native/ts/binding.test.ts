/** The binding itself: whatever numbers and arrays JavaScript passes, memory stays safe and errors are typed. */
import { describe, expect, it } from "vitest";
import {
  DisposedError,
  DTypeCode,
  DTypeError,
  engine,
  LlmeffError,
  OptionError,
  OutOfMemoryError,
  ShapeError,
  UnaryOp,
} from "./index.js";

const { float32, float64, int32 } = DTypeCode;
const native = engine();
const cpu = 0;
const wrong = (value: unknown) => value as never;

function array(values: number[], shape = [values.length]): number {
  const handle = native.create(cpu, float32, ...shape);
  native.upload(handle, Float32Array.from(values), float32);
  return handle;
}
const read = (handle: number, size: number) => [...native.readSync(handle, new Float32Array(size))];

describe("matmulTransposed", () => {
  it("multiplies by the rows of its second matrix, for all leading axes", () => {
    const a = array([1, 2, 3, 4], [2, 1, 2]);
    const b = array([1, 0, 0, 1, 1, 1], [3, 2]);
    const out = array([0, 0, 0, 0, 0, 0], [2, 1, 3]);
    native.op.matmulTransposed(a, b, null, 0, null, out);
    expect(read(out, 6)).toEqual([1, 2, 3, 3, 4, 7]);
    const vector = array([1, 2]);
    expect(() => native.op.matmulTransposed(a, vector, null, 0, null, out)).toThrow(ShapeError);
    for (const handle of [a, b, out, vector]) native.release(handle);
  });
});

describe("handles", () => {
  it("name an array until it is released, and never another one afterwards", () => {
    const first = array([1]);
    native.release(first);
    native.release(first);
    const second = array([2]);
    expect(second).not.toBe(first);
    expect(() => native.readSync(first, new Float32Array(1))).toThrow(DisposedError);
    expect(read(second, 1)).toEqual([2]);
    native.release(second);
  });

  it.each([-1, 0.5, 12345, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY])(
    "that are no handles (%d) are refused",
    (handle) => {
      expect(() => native.op.fill(0, handle)).toThrow(DisposedError);
      expect(() => native.isShared(handle)).toThrow(DisposedError);
      expect(() => native.release(handle)).not.toThrow();
    },
  );

  it.each([["text"], [{}], [true], [10n], [Symbol("s")]])("of another type (%s) are refused", (value) => {
    expect(() => native.view(wrong(value), float32, 0, 1, 1)).toThrow();
    expect(() => native.op.unary(UnaryOp.neg, wrong(value), wrong(value))).toThrow();
    expect(() => native.release(wrong(value))).toThrow();
  });

  it("tell when memory is shared", () => {
    const base = array([1, 2]);
    expect(native.isShared(base)).toBe(false);
    const view = native.view(base, float32, 1, 1, 1);
    expect(native.isShared(base)).toBe(true);
    expect(native.haveSharedMemory(view, base)).toBe(true);
    const other = array([1, 2]);
    expect(native.haveSharedMemory(view, other)).toBe(false);
    for (const handle of [base, other]) native.release(handle);
    expect(native.isShared(view)).toBe(false);
    expect(read(view, 1)).toEqual([2]);
    native.release(view);
  });

  it("tell how far apart they begin and whether elements have two names", () => {
    const base = array([1, 2, 3, 4, 5, 6]);
    const other = array([1, 2]);
    const left = native.view(base, float32, 0, 2, 2, 3, 1);
    const right = native.view(base, float32, 2, 2, 3);
    const behind = native.view(base, float32, 5, 1, 1);
    expect(native.distance(base, right)).toBe(2);
    expect(native.distance(behind, right)).toBe(-3);
    expect(native.distance(base, other)).toBeUndefined();
    expect(native.isOverlapped(base)).toBe(true);
    native.release(base);
    expect(native.isOverlapped(left)).toBe(true); // the other lies between its rows
    expect(native.isOverlapped(other)).toBe(false);
    native.release(behind);
    native.release(left);
    expect(native.isOverlapped(right)).toBe(false);
    const pieces = [native.view(right, float32, 0, 1, 1), native.view(right, float32, 3, 1, 1)];
    native.release(right);
    for (const piece of pieces) expect(native.isOverlapped(piece)).toBe(false);
    expect(native.distance(pieces[0]!, pieces[1]!)).toBe(3);
    for (const handle of [...pieces, other]) native.release(handle);
  });

  it("of nothing are apart from everything", () => {
    const nothing = native.create(0, float32, 0);
    expect(native.distance(nothing, nothing)).toBeUndefined();
    expect(native.isOverlapped(nothing)).toBe(false);
    native.release(nothing);
  });
});

describe("view", () => {
  const base = array([0, 1, 2, 3, 4, 5]);

  it("takes any strides that stay inside, negative ones too", () => {
    const reversed = native.view(base, float32, 5, 3, -2);
    expect(read(reversed, 3)).toEqual([5, 3, 1]);
    expect(read(native.view(reversed, float32, 0, 2, -1), 2)).toEqual([5, 4]);
    expect(read(native.view(base, float32, 4, 2, 2, 0, 1), 4)).toEqual([4, 5, 4, 5]);
  });

  const outside: [what: string, shape: number[], strides: number[], offset: number][] = [
    ["one element past the end", [1], [1], 6],
    ["one element before the start", [1], [1], -1],
    ["a stride past the end", [2], [6], 0],
    ["a stride before the start", [2], [-1], 0],
    ["a stride whose reach overflows 64 bits", [3], [2 ** 61], 0],
    ["a stride whose reach overflows to 0", [5], [2 ** 62], 0],
    ["strides whose sum overflows", [2, 2, 2], [2 ** 62, 2 ** 62, 2 ** 62], 0],
    ["an offset whose bytes overflow", [1], [1], 2 ** 62],
    ["the largest offset", [1], [1], 2 ** 63],
    ["the smallest offset", [1], [1], -(2 ** 63)],
    ["an infinite size", [2 ** 60, 2 ** 60], [0, 0], 0],
  ];
  it.each(outside)("refuses %s", (_what, shape, strides, offset) => {
    expect(() => native.view(base, float32, offset, ...shape, ...strides)).toThrow(LlmeffError);
  });

  it("refuses another item size, a missing stride, elements of an empty array, and nine axes", () => {
    expect(() => native.view(base, float64, 0, 1, 1)).toThrow(DTypeError);
    expect(() => native.view(base, float32, 0, 1, 1, 1)).toThrow(ShapeError);
    expect(() => native.view(native.create(cpu, float32, 0), float32, 0, 1, 1)).toThrow(ShapeError);
    expect(() => native.view(base, float32, 0, ...new Array(18).fill(1))).toThrow(ShapeError);
    expect(() => native.view(base, 7, 0, 1, 1)).toThrow(DTypeError);
  });
});

describe("create", () => {
  it("refuses what is no shape or dtype, and more memory than there is", () => {
    expect(() => native.create(cpu, -1, 1)).toThrow(DTypeError);
    expect(() => native.create(cpu, float32, -1)).toThrow(ShapeError);
    expect(() => native.create(cpu, float32, 2 ** 40, 2 ** 40)).toThrow(OutOfMemoryError);
    expect(() => native.create(cpu, float32, 2 ** 46)).toThrow(OutOfMemoryError);
    for (const shape of [
      [0, 2 ** 40, 2 ** 40],
      [2 ** 40, 2 ** 40, 0],
    ]) {
      expect([...native.readSync(native.create(cpu, float32, ...shape), new Float32Array(0))]).toEqual([]);
    }
    expect(() => native.create(cpu, float32, wrong("shape"))).toThrow();
    expect(() => native.create(cpu, float32, wrong({}))).toThrow();
  });
});

describe("upload and read", () => {
  it("refuse arrays of another length and things that are no arrays", async () => {
    const x = array([1, 2]);
    expect(() => native.upload(x, new Float32Array(3), float32)).toThrow(ShapeError);
    expect(() => native.upload(x, wrong([1, 2]), float32)).toThrow(DTypeError);
    expect(() => native.readSync(x, new Float32Array(1))).toThrow(ShapeError);
    expect(() => native.read(x, wrong(null))).toThrow(DTypeError);
    expect(() => native.read(x, wrong(new ArrayBuffer(8)))).toThrow(DTypeError);
    const detached = new Float32Array(2);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    expect(() => native.upload(x, detached, float32)).toThrow(ShapeError);
    expect([...(await native.read(x, new Float32Array(2)))]).toEqual([1, 2]);
  });

  it("work with shared memory and parts of buffers", () => {
    const x = native.create(cpu, float32, 2);
    const shared = new Float32Array(new SharedArrayBuffer(16), 4, 2);
    shared.set([5, 6]);
    native.upload(x, shared, float32);
    const into = new Float32Array(new SharedArrayBuffer(16), 8, 2);
    expect([...native.readSync(x, into)]).toEqual([5, 6]);
  });
});

describe("op", () => {
  it("works in place on typed arrays before it returns, mixed with handles", () => {
    const x = Float32Array.of(1, -2, 3);
    native.op.unary(UnaryOp.neg, x, x);
    expect([...x]).toEqual([-1, 2, -3]);
    native.op.copy(array([7, 8, 9]), x);
    expect([...x]).toEqual([7, 8, 9]);
  });

  it("throws what fails on typed arrays at once", () => {
    expect(() => native.op.embedding(array([1, 2], [2, 1]), Int32Array.of(5), array([0], [1, 1]))).toThrow(
      /token id 5/,
    );
  });

  it("refuses wrong counts of arguments and enumerations", () => {
    expect(() => native.op.fill(...([1] as unknown as [number, number]))).toThrow(OptionError);
    expect(() => native.op.unary(99, array([1]), array([1]))).toThrow(OptionError);
    expect(() => native.op.unary(-1, array([1]), array([1]))).toThrow(OptionError);
    expect(() => native.op.globalNorm(wrong("list"), array([1]))).toThrow();
    expect(() => native.op.copy(wrong(new BigInt64Array(1)), wrong(new BigInt64Array(1)))).toThrow(DTypeError);
  });

  it("refuses absent arrays but those that are optional", () => {
    const x = array([1, 2, 3, 4], [2, 2]);
    const out = array([0, 0, 0, 0], [2, 2]);
    expect(() => native.op.unary(UnaryOp.neg, wrong(null), out)).toThrow(OptionError);
    expect(() => native.op.unary(UnaryOp.neg, x, wrong(undefined))).toThrow(OptionError);
    expect(() => native.op.globalNorm([x, wrong(null)], out)).toThrow(OptionError);
    expect(() => native.op.matmul(x, wrong(null), null, 0, null, out)).toThrow(/argument 1 of matmul is absent/);
    native.op.matmul(x, x, null, 0, null, out);
    expect(read(out, 4)).toEqual([7, 10, 15, 22]);
  });

  it("refuses lists with an entry that has no elements, instead of doing nothing for all", () => {
    const [x, norm] = [array([3, 4]), array([-1], [])];
    for (const empty of [native.create(cpu, float32, 0), new Float32Array(0)]) {
      expect(() => native.op.globalNorm([x, empty], norm)).toThrow(ShapeError);
      expect(() => native.op.globalNorm([x, empty], norm)).toThrow(/entry 1 of a list .* has no elements/);
    }
    native.op.globalNorm([x], norm);
    expect(read(norm, 1)).toEqual([5]);
  });

  it("does nothing on arrays without elements", () => {
    const empty = native.create(cpu, int32, 0);
    expect(native.op.copy(empty, empty)).toBe(0);
    expect([...native.readSync(empty, new Int32Array(0))]).toEqual([]);
  });
});

describe("info", () => {
  it("names the instruction set in use among those available, the plain one last", () => {
    const { isa, availableIsas, numThreads } = native.info();
    expect(availableIsas).toContain(isa);
    expect(["generic", "neon"]).toContain(availableIsas.at(-1));
    expect(numThreads).toBeGreaterThanOrEqual(1);
  });

  it("doesn't follow changes of the environment", () => {
    const { isa } = native.info();
    const before = process.env.LLMEFF_CPU_ISA;
    process.env.LLMEFF_CPU_ISA = "mmx";
    try {
      expect(native.info().isa).toBe(isa);
    } finally {
      if (before === undefined) delete process.env.LLMEFF_CPU_ISA;
      else process.env.LLMEFF_CPU_ISA = before;
    }
  });
});
