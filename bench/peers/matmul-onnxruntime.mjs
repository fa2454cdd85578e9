/** Square matrix products of onnxruntime-node, which runs graphs only: a model of one MatMul node is written by hand. */
import ort from "onnxruntime-node";
import { childOptions, emit } from "../lib/child.mjs";
import { time } from "../lib/timing.mjs";

const { sizes, threads: threadCounts, samples, sampleMs } = childOptions();

// Protobuf wire format: a field is (number << 3 | type), then a varint (type 0) or a length and bytes (type 2).
function varint(value) {
  const bytes = [];
  let rest = value;
  do {
    bytes.push((rest & 127) | (rest > 127 ? 128 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return bytes;
}
const number = (field, value) => [...varint(field << 3), ...varint(value)];
const bytes = (field, content) => [...varint((field << 3) | 2), ...varint(content.length), ...content];
const text = (field, value) => bytes(field, [...Buffer.from(value)]);

/** ModelProto { ir_version 8, graph { node MatMul(a, b) → c, inputs a, b, output c }, opset 17 } with float [n, n] everywhere. */
function matmulModel(n) {
  const dimension = bytes(1, number(1, n));
  const value = (name) => [
    ...text(1, name),
    ...bytes(2, bytes(1, [...number(1, 1), ...bytes(2, [...dimension, ...dimension])])),
  ];
  const node = [...text(1, "a"), ...text(1, "b"), ...text(2, "c"), ...text(4, "MatMul")];
  const graph = [
    ...bytes(1, node),
    ...text(2, "g"),
    ...bytes(11, value("a")),
    ...bytes(11, value("b")),
    ...bytes(12, value("c")),
  ];
  return Uint8Array.from([...number(1, 8), ...bytes(7, graph), ...bytes(8, [...text(1, ""), ...number(2, 17)])]);
}

for (const threads of threadCounts)
  for (const n of sizes) {
    const session = await ort.InferenceSession.create(matmulModel(n), { intraOpNumThreads: threads });
    const values = (period) =>
      new ort.Tensor(
        "float32",
        Float32Array.from({ length: n * n }, (_, i) => (i % period) * 0.1),
        [n, n],
      );
    const feeds = { a: values(7), b: values(5) };
    const work = async (count) => {
      for (let i = 0; i < count; i++) await session.run(feeds);
    };
    const { best } = await time(work, { samples, sampleMs });
    emit({ library: "onnxruntime-node", n, threads, gflops: (2 * n ** 3) / best / 1e9 });
    await session.release();
  }
