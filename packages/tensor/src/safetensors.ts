/**
 * The safetensors format (https://github.com/huggingface/safetensors): an 8-byte little-endian header length, a JSON header of names,
 * dtypes, shapes and offsets, then the raw data.
 */
import { type FileHandle, open } from "node:fs/promises";
import { DTypeCode, DTypeError, FormatError, IoError, OptionError } from "@llmeff/native";
import type { DeviceChoice } from "./device.js";
import { allocateTypedArray, type DType, itemSize, type TypedArray } from "./dtype.js";
import { isSystemError, replaceDurably } from "./durable-files.js";
import { tensor } from "./ops/creation.js";
import {
  encodeHeader,
  headerLength,
  isReadable,
  parseHeader,
  type SafetensorsEntry,
  type StoredDType,
} from "./safetensors-header.js";
import { keep, scope } from "./scope.js";
import type { Shape } from "./shape.js";
import type { Tensor } from "./tensor.js";

export interface SafetensorsOptions {
  /** Where the tensors are made; default that of `tensor`. */
  device?: DeviceChoice | undefined;
}

export interface SafetensorsFile {
  tensors: Record<string, Tensor>;
  metadata: Record<string, string>;
}

function tensorOf(dtype: DType, shape: readonly number[], bytes: Uint8Array, device: DeviceChoice | undefined): Tensor {
  const values = allocateTypedArray(dtype, bytes.length / itemSize(dtype));
  bytesOf(values).set(bytes);
  return tensor(values, { shape, dtype, device });
}

/** A tensor's dtype, if it is one that the engine has. @throws {DTypeError} */
function readable(where: string, name: string, dtype: StoredDType): DType {
  if (isReadable(dtype)) return dtype;
  throw new DTypeError(
    `${where} tensor ${JSON.stringify(name)} is of ${dtype}; expected one of ${Object.keys(DTypeCode).join(", ")}. openSafetensors reads the others of the file.`,
  );
}

/**
 * Tensors of a safetensors file in memory.
 *
 * @throws {FormatError} naming what is wrong with it
 * @throws {DTypeError} if a tensor is of a dtype that the engine hasn't
 */
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
        tensorOf(readable(where, name, dtype), shape, bytes.subarray(begin, end), device),
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

/** A safetensors file that is open: its header read and checked, its tensors read one by one when asked for. */
export interface SafetensorsReader extends AsyncDisposable {
  readonly path: string;
  /** What the file holds. */
  readonly entries: ReadonlyMap<string, { readonly dtype: StoredDType; readonly shape: Shape }>;
  /** The file's `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * One of its tensors, which belongs to no scope.
   *
   * @throws {OptionError} if the file has none of this name; {@link DTypeError} if the engine hasn't its dtype; {@link FormatError} if the file was
   * cut meanwhile; {@link IoError} if it can't be read
   */
  read(name: string, options?: SafetensorsOptions): Promise<Tensor>;
  close(): Promise<void>;
}

/** System errors as errors of this package. */
async function reading<R>(path: string, read: () => Promise<R>): Promise<R> {
  try {
    return await read();
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new IoError(`[safetensors] ${path} can't be read: ${cause.message}.`, { cause });
  }
}

async function readHeader(where: string, file: FileHandle) {
  const { size } = await file.stat();
  const prefix = new Uint8Array(Math.min(size, 8));
  await readAt(where, file, prefix, 0);
  const header = new Uint8Array(headerLength(where, prefix, size));
  await readAt(where, file, header, 8);
  return parseHeader(where, header, size);
}

/**
 * Opens a safetensors file to read some of its tensors.
 *
 * @throws {IoError} if the file can't be read
 * @throws {FormatError} if its header is truncated, corrupt or hostile
 *
 * @example
 * await using file = await openSafetensors("model.safetensors");
 * const norm = await file.read("model.norm.weight");
 */
export async function openSafetensors(path: string): Promise<SafetensorsReader> {
  const where = `[safetensors] ${path}:`;
  return reading(path, async () => {
    const file = await open(path, "r");
    try {
      const { entries, metadata } = await readHeader(where, file);
      const close = () => file.close();
      const read = (name: string, { device }: SafetensorsOptions = {}) =>
        reading(path, () => readTensor(where, file, entries.get(name), name, device));
      return { path, entries, metadata, read, close, [Symbol.asyncDispose]: close };
    } catch (error) {
      await file.close();
      throw error;
    }
  });
}

async function readTensor(
  where: string,
  file: FileHandle,
  entry: SafetensorsEntry | undefined,
  name: string,
  device: DeviceChoice | undefined,
): Promise<Tensor> {
  if (entry === undefined) throw new OptionError(`${where} there is no tensor ${JSON.stringify(name)}.`);
  const { shape, begin, end } = entry;
  const dtype = readable(where, name, entry.dtype);
  const values = allocateTypedArray(dtype, (end - begin) / itemSize(dtype));
  await readAt(where, file, bytesOf(values), begin);
  return keep(tensor(values, { shape, dtype, device }));
}

/**
 * Reads a safetensors file, one tensor after the other: beside the tensors, memory holds the largest of them once more. The tensors belong
 * to no scope.
 *
 * @throws {IoError} if the file can't be read
 * @throws {FormatError} if it is truncated, corrupt or hostile
 * @throws {DTypeError} before any is read, if one is of a dtype that the engine hasn't
 */
export async function loadSafetensors(path: string, options: SafetensorsOptions = {}): Promise<SafetensorsFile> {
  const file = await openSafetensors(path);
  const loaded: [name: string, tensor: Tensor][] = [];
  try {
    for (const [name, { dtype }] of file.entries) readable(`[safetensors] ${path}:`, name, dtype);
    for (const name of file.entries.keys()) loaded.push([name, await file.read(name, options)]);
  } catch (error) {
    for (const [, made] of loaded) made.dispose();
    throw error;
  } finally {
    await file.close();
  }
  return { tensors: Object.fromEntries(loaded), metadata: { ...file.metadata } };
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
  try {
    const values = await Promise.all(data);
    await replaceDurably(path, async (file) => {
      await file.writeFile(header);
      for (const part of values) await file.writeFile(bytesOf(part));
    });
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new IoError(`[safetensors] ${path} can't be written: ${cause.message}. Nothing was changed.`, { cause });
  }
}
