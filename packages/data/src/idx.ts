/**
 * IDX, the format of MNIST and its relatives: `00 00 TT DD`, then DD sizes and the elements, all big-endian
 * (Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits"). TT is the type of the elements, DD the number of axes.
 */
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { FormatError } from "@llmeff/native/errors";
import { readFailure } from "./read-failure.js";

export type IdxData = Uint8Array | Int8Array | Int16Array | Int32Array | Float32Array | Float64Array;

export interface IdxArray {
  /** Sizes of the axes; MNIST's images have `[60000, 28, 28]`. */
  shape: readonly number[];
  /** The elements, row-major. */
  data: IdxData;
}

/** By type byte: how the elements are read. */
const elementTypes: Record<number, { bytes: number; read: (view: DataView, count: number) => IdxData }> = {
  8: { bytes: 1, read: (view, n) => new Uint8Array(view.buffer, view.byteOffset, n).slice() },
  9: { bytes: 1, read: (view, n) => new Int8Array(view.buffer, view.byteOffset, n).slice() },
  11: { bytes: 2, read: (view, n) => Int16Array.from({ length: n }, (_, i) => view.getInt16(2 * i)) },
  12: { bytes: 4, read: (view, n) => Int32Array.from({ length: n }, (_, i) => view.getInt32(4 * i)) },
  13: { bytes: 4, read: (view, n) => Float32Array.from({ length: n }, (_, i) => view.getFloat32(4 * i)) },
  14: { bytes: 8, read: (view, n) => Float64Array.from({ length: n }, (_, i) => view.getFloat64(8 * i)) },
};

/**
 * Decodes the bytes of an IDX file.
 *
 * @throws {FormatError} if the bytes don't begin as IDX does, or are fewer or more than their sizes say
 */
export function decodeIdx(bytes: Uint8Array, name = "the bytes"): IdxArray {
  const fail = (what: string): never => {
    throw new FormatError(`[decodeIdx] ${name}: ${what}.`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const type = bytes.length < 4 || view.getUint16(0) !== 0 ? undefined : elementTypes[bytes[2]!];
  if (type === undefined) {
    const start = [...bytes.subarray(0, 4)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    return fail(
      `expected 00 00, a type of 08, 09, 0b, 0c, 0d or 0e and the number of axes; received ${start || "nothing"}. Is it IDX?`,
    );
  }
  const rank = bytes[3]!;
  const start = 4 + 4 * rank;
  if (bytes.length < start) return fail(`${rank} axes need a header of ${start} bytes; received ${bytes.length}`);
  const shape = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  const count = shape.reduce((product, n) => product * n, 1);
  const expected = start + count * type.bytes;
  if (bytes.length !== expected) {
    return fail(`shape [${shape.join(", ")}] needs ${expected} bytes; received ${bytes.length}. Copy the file again`);
  }
  return { shape, data: type.read(new DataView(bytes.buffer, bytes.byteOffset + start), count) };
}

/**
 * Reads an IDX file, plain or gzip.
 *
 * @throws {IoError} if the file can't be read
 * @throws {FormatError} if it isn't whole, or isn't IDX
 *
 * @example
 * const { shape, data } = await loadIdx("train-images-idx3-ubyte.gz"); // [60000, 28, 28], Uint8Array
 */
export async function loadIdx(path: string): Promise<IdxArray> {
  try {
    const bytes = await readFile(path);
    const packed = bytes[0] === 0x1f && bytes[1] === 0x8b;
    return decodeIdx(packed ? await promisify(gunzip)(bytes) : bytes, path);
  } catch (cause) {
    throw readFailure("loadIdx", path, cause);
  }
}
