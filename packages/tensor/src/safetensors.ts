/**
 * The safetensors format (https://github.com/huggingface/safetensors): an 8-byte little-endian header length, a JSON header of names,
 * dtypes, shapes and offsets, then the raw data. Headers come from strangers: everything in them is checked before it is used.
 */
import { randomUUID } from "node:crypto";
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { FormatError, IoError, OptionError } from "@llmeff/native";
import type { DeviceChoice } from "./device.js";
import { allocateTypedArray, type DType, itemSize, type TypedArray } from "./dtype.js";
import { tensor } from "./ops/creation.js";
import { scope } from "./scope.js";
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

const dtypes = new Map(Object.entries(names).map(([dtype, name]) => [name as string, dtype as DType]));

/** The format's own limit on headers. */
const maxHeaderBytes = 100_000_000;

/** One tensor of a file, before its data are read. */
export interface SafetensorsEntry {
  dtype: DType;
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

export interface SafetensorsOptions {
  /** Where the tensors are made; default that of `tensor`. */
  device?: DeviceChoice | undefined;
}

export interface SafetensorsFile {
  tensors: Record<string, Tensor>;
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
  const addressed = sizeOf(shape.filter((n) => n > 0)) * itemSize(dtype);
  if (addressed > Number.MAX_SAFE_INTEGER) {
    throw bad(`shape ${show(shape)} of ${value.dtype} needs strides of up to ${addressed} bytes, more than 2^53 − 1.`);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end || dataStart + end > fileBytes) {
    throw bad(
      `data_offsets [${begin}, ${end}] reach outside of the ${fileBytes - dataStart} bytes of data; the file is truncated or corrupt.`,
    );
  }
  if (end - begin !== sizeOf(shape) * itemSize(dtype)) {
    throw bad(
      `shape [${shape.join(", ")}] of ${value.dtype} needs ${sizeOf(shape) * itemSize(dtype)} bytes; data_offsets give ${end - begin}.`,
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

function parseHeader(where: string, bytes: Uint8Array, fileBytes: number): SafetensorsHeader {
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

function headerLength(where: string, prefix: Uint8Array, fileBytes: number): number {
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

function tensorOf(dtype: DType, shape: readonly number[], bytes: Uint8Array, device: DeviceChoice | undefined): Tensor {
  const values = allocateTypedArray(dtype, bytes.length / itemSize(dtype));
  bytesOf(values).set(bytes);
  return tensor(values, { shape, dtype, device });
}

/** Tensors of a safetensors file in memory. @throws {FormatError} naming what is wrong with it */
export function decodeSafetensors(
  bytes: Uint8Array,
  where = "[safetensors]",
  { device }: SafetensorsOptions = {},
): SafetensorsFile {
  const length = headerLength(where, bytes.subarray(0, 8), bytes.length);
  const { entries, metadata } = parseHeader(where, bytes.subarray(8, 8 + length), bytes.length);
  return scope(() => {
    const tensors = Object.fromEntries(
      [...entries].map(([name, { dtype, shape, begin, end }]) => [
        name,
        tensorOf(dtype, shape, bytes.subarray(begin, end), device),
      ]),
    );
    return { tensors, metadata };
  });
}

/** Most bytes of one read: the system's calls take less than 2 GiB, and shorter ones leave the thread pool to others in between. */
const readLimit = 2 ** 26;

/** Fills `bytes` from a place in the file. */
async function readAt(where: string, file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesRead } = await file.read(bytes, at, Math.min(bytes.length - at, readLimit), position + at);
    if (bytesRead === 0) {
      throw new FormatError(`${where} the file ended at byte ${position + at} while it was read. Is it being written?`);
    }
    at += bytesRead;
  }
}

async function readTensors(
  where: string,
  file: FileHandle,
  device: DeviceChoice | undefined,
): Promise<SafetensorsFile> {
  const { size } = await file.stat();
  const prefix = new Uint8Array(Math.min(size, 8));
  await readAt(where, file, prefix, 0);
  const header = new Uint8Array(headerLength(where, prefix, size));
  await readAt(where, file, header, 8);
  const { entries, metadata } = parseHeader(where, header, size);
  const loaded: [name: string, tensor: Tensor][] = [];
  try {
    for (const [name, { dtype, shape, begin, end }] of entries) {
      const values = allocateTypedArray(dtype, (end - begin) / itemSize(dtype));
      await readAt(where, file, bytesOf(values), begin);
      loaded.push([name, tensor(values, { shape, dtype, device })]);
    }
  } catch (error) {
    for (const [, made] of loaded) made.dispose();
    throw error;
  }
  return { tensors: Object.fromEntries(loaded), metadata };
}

/**
 * Reads a safetensors file, one tensor after the other: beside the tensors, memory holds the largest of them once more. The tensors belong
 * to no scope.
 *
 * @throws {IoError} if the file can't be read
 * @throws {FormatError} if it is truncated, corrupt or hostile
 */
export async function loadSafetensors(path: string, { device }: SafetensorsOptions = {}): Promise<SafetensorsFile> {
  try {
    const file = await open(path, "r");
    try {
      return await readTensors(`[safetensors] ${path}:`, file, device);
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new IoError(`[safetensors] ${path} can't be read: ${cause.message}.`, { cause });
  }
}

function isSystemError(error: unknown): error is Error {
  return error instanceof Error && "syscall" in error;
}

function encodeHeader(tensors: Record<string, Tensor>, metadata: Record<string, string>): Uint8Array {
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

function bytesOf(values: TypedArray): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** The tensors as a safetensors file in memory. Waits for their values. */
export async function encodeSafetensors(
  tensors: Record<string, Tensor>,
  metadata: Record<string, string> = {},
): Promise<Uint8Array> {
  const header = encodeHeader(tensors, metadata);
  const data = await Promise.all(Object.values(tensors).map((t) => t.data()));
  const bytes = new Uint8Array(data.reduce((n, values) => n + values.byteLength, header.length));
  bytes.set(header);
  let offset = header.length;
  for (const values of data) {
    bytes.set(bytesOf(values), offset);
    offset += values.byteLength;
  }
  return bytes;
}

/**
 * Writes tensors to a safetensors file: to a temporary file beside it, flushed to the disk, then renamed, so that `path` never holds half a file.
 *
 * @param metadata - strings to keep in the file's `__metadata__`
 * @throws {IoError} if the file can't be written (the disk is full, no permission); what was at `path` is unchanged
 */
export async function saveSafetensors(
  path: string,
  tensors: Record<string, Tensor>,
  metadata: Record<string, string> = {},
): Promise<void> {
  const header = encodeHeader(tensors, metadata);
  // All values as of now, whatever is queued while the file is written.
  const data = Object.values(tensors).map((t) => t.data());
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    const values = await Promise.all(data);
    const file = await open(temporary, "wx");
    try {
      await file.writeFile(header);
      for (const part of values) await file.writeFile(bytesOf(part));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    await unlink(temporary).catch(() => undefined);
    if (!isSystemError(cause)) throw cause;
    throw new IoError(`[safetensors] ${path} can't be written: ${cause.message}. Nothing was changed.`, { cause });
  }
  await syncFolder(dirname(path));
}

/** Makes a rename durable, where the system can: Windows doesn't open folders, some file systems don't flush them. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r").catch(() => undefined);
  await folder?.sync().catch(() => undefined);
  await folder?.close();
}
