/** The header of a safetensors file. It comes from strangers: everything in it is checked before it is used. */
import { FormatError, OptionError } from "@llmeff/native";
import { type DType, itemSize } from "./dtype.js";
import { maxRank, sizeOf } from "./shape.js";
import type { Tensor } from "./tensor.js";

const names = {
  float32: "F32",
  float64: "F64",
  bfloat16: "BF16",
  float16: "F16",
  int32: "I32",
  uint8: "U8",
  bool: "BOOL",
} as const satisfies Record<DType, string>;

/** Types of the format that the engine has no tensors of, with the bytes of an element. */
const foreignSizes = {
  int8: 1,
  int16: 2,
  int64: 8,
  uint16: 2,
  uint32: 4,
  uint64: 8,
  float8_e4m3: 1,
  float8_e5m2: 1,
} as const;

/** What a file may hold: tensors of every `DType`, which can be read, and others, which can only be told of. */
export type StoredDType = DType | keyof typeof foreignSizes;

const foreignNames = {
  int8: "I8",
  int16: "I16",
  int64: "I64",
  uint16: "U16",
  uint32: "U32",
  uint64: "U64",
  float8_e4m3: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
} as const satisfies Record<Exclude<StoredDType, DType>, string>;

const dtypes = new Map(
  Object.entries({ ...names, ...foreignNames }).map(([dtype, name]) => [name as string, dtype as StoredDType]),
);

/** Whether tensors of a stored type can be read. */
export function isReadable(dtype: StoredDType): dtype is DType {
  return !Object.hasOwn(foreignSizes, dtype);
}

function storedSize(dtype: StoredDType): number {
  return isReadable(dtype) ? itemSize(dtype) : foreignSizes[dtype];
}

/** The format's own limit on headers. */
const maxHeaderBytes = 100_000_000;

/** One tensor of a file, before its data are read. */
export interface SafetensorsEntry {
  dtype: StoredDType;
  shape: number[];
  /** Place of the data in the file, in bytes from its start. */
  begin: number;
  end: number;
}

export interface SafetensorsHeader {
  entries: Map<string, SafetensorsEntry>;
  /** The file's `__metadata__`. */
  metadata: Record<string, string>;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value of a header for a message: hostile ones may be too deep or too long to print. */
function show(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(JSON.stringify(value)).slice(0, 80);
  if (!Array.isArray(value)) return "an object";
  return value.length <= maxRank && value.every((n) => typeof n !== "object")
    ? JSON.stringify(value).slice(0, 200)
    : "an array";
}

function parseEntry(
  where: string,
  name: string,
  value: unknown,
  dataStart: number,
  fileBytes: number,
): SafetensorsEntry {
  const bad = (what: string) => new FormatError(`${where} tensor ${show(name)}: ${what}`);
  if (!isRecord(value)) throw bad(`expected { dtype, shape, data_offsets }; received ${show(value)}.`);
  const dtype = typeof value.dtype === "string" ? dtypes.get(value.dtype) : undefined;
  if (dtype === undefined) {
    throw bad(`dtype ${show(value.dtype)} is not supported; supported are ${[...dtypes.keys()].join(", ")}.`);
  }
  const { shape, data_offsets: offsets } = value;
  const isCount = (n: unknown): n is number => typeof n === "number" && Number.isSafeInteger(n) && n >= 0;
  if (!Array.isArray(shape) || shape.length > maxRank || !shape.every(isCount)) {
    throw bad(`shape must be an array of at most ${maxRank} non-negative integers; received ${show(shape)}.`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw bad(`data_offsets must be two non-negative integers; received ${show(offsets)}.`);
  }
  // An empty tensor needs no data, so that its shape alone must be one that the engine can address.
  const addressed = sizeOf(shape.filter((n) => n > 0)) * storedSize(dtype);
  if (addressed > Number.MAX_SAFE_INTEGER) {
    throw bad(`shape ${show(shape)} of ${value.dtype} needs strides of up to ${addressed} bytes, more than 2^53 − 1.`);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end || dataStart + end > fileBytes) {
    throw bad(
      `data_offsets [${begin}, ${end}] reach outside of the ${fileBytes - dataStart} bytes of data; the file is truncated or corrupt.`,
    );
  }
  if (end - begin !== sizeOf(shape) * storedSize(dtype)) {
    throw bad(
      `shape [${shape.join(", ")}] of ${value.dtype} needs ${sizeOf(shape) * storedSize(dtype)} bytes; data_offsets give ${end - begin}.`,
    );
  }
  return { dtype, shape, begin: dataStart + begin, end: dataStart + end };
}

/** `JSON.parse` keeps the last of equal keys; two tensors of one name are refused, so count the keys in the text of the valid JSON. */
function countTopLevelKeys(text: string): number {
  let depth = 0;
  let count = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '"') {
      for (at++; text[at] !== '"'; at++) if (text[at] === "\\") at++;
    } else if (char === "{" || char === "[") depth++;
    else if (char === "}" || char === "]") depth--;
    else if (char === ":" && depth === 1) count++;
  }
  return count;
}

/** What the bytes of a header say of a file of this size. @throws {FormatError} naming what is wrong */
export function parseHeader(where: string, bytes: Uint8Array, fileBytes: number): SafetensorsHeader {
  let text: string;
  let json: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    json = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(`${where} the header is not valid JSON in UTF-8.`, { cause });
  }
  if (!isRecord(json)) throw new FormatError(`${where} the header must be a JSON object.`);
  if (countTopLevelKeys(text) !== Object.keys(json).length)
    throw new FormatError(`${where} the header names a tensor twice.`);
  const { __metadata__: metadata = {}, ...tensors } = json;
  if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === "string")) {
    throw new FormatError(`${where} __metadata__ must map strings to strings.`);
  }
  const dataStart = 8 + bytes.length;
  const entries = new Map(
    Object.entries(tensors).map(([name, value]) => [name, parseEntry(where, name, value, dataStart, fileBytes)]),
  );
  let position = dataStart;
  for (const [name, entry] of [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (entry.begin !== position) {
      throw new FormatError(
        `${where} tensor ${show(name)} begins at byte ${entry.begin} where ${position} was expected: the data overlap or have a hole.`,
      );
    }
    position = entry.end;
  }
  if (position !== fileBytes) throw new FormatError(`${where} ${fileBytes - position} bytes follow the last tensor.`);
  return { entries, metadata: metadata as Record<string, string> };
}

/** Bytes of the header, by the first eight of a file. */
export function headerLength(where: string, prefix: Uint8Array, fileBytes: number): number {
  if (prefix.length < 8)
    throw new FormatError(`${where} a safetensors file has at least 8 bytes; received ${prefix.length}.`);
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > maxHeaderBytes || Number(length) > fileBytes - 8) {
    throw new FormatError(
      `${where} the header length of ${length} bytes is more than the file (${fileBytes} bytes) or the format (${maxHeaderBytes}) allows.`,
    );
  }
  return Number(length);
}

/** The first bytes of a file of these tensors: everything before their data. */
export function encodeHeader(tensors: Record<string, Tensor>, metadata: Record<string, string>): Uint8Array {
  const header: Record<string, unknown> = Object.create(null); // so that "__proto__" is a name like any other
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata;
  let offset = 0;
  for (const [name, { dtype, shape, size }] of Object.entries(tensors)) {
    if (name === "__metadata__") throw new OptionError('[safetensors] a tensor must not be called "__metadata__".');
    const end = offset + size * itemSize(dtype);
    header[name] = { dtype: names[dtype], shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(Math.ceil(json.length / 8) * 8).fill(0x20); // spaces: data begin at a multiple of 8
  padded.set(json);
  const bytes = new Uint8Array(8 + padded.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded.length), true);
  bytes.set(padded, 8);
  return bytes;
}
