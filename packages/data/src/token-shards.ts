/**
 * Tokenised documents on disk, in the indexed data sets of Megatron-LM: per shard the ids in `<name>.bin` and in `<name>.idx`
 *
 *     "MMIDIDX\0\0", u64 version 1, u8 type of the ids, u64 sequences S, u64 D + 1,
 *     i32 lengths [S], i64 byte offsets [S], i64 first sequences of the documents and their end [D + 1]      all little-endian
 *
 * Ids are read by position where they are needed; in memory are 8 bytes a document.
 */
import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { endianness } from "node:os";
import { join } from "node:path";
import { FormatError, IoError, OptionError } from "@llmeff/native/errors";
import { requireInteger } from "./batch.js";
import type { DocumentSet } from "./documents.js";
import { readFailure } from "./read-failure.js";
import type { TokenArray } from "./token-dataset.js";
import { requireIds } from "./tokenizer.js";

const MAGIC = "MMIDIDX\0\0";
const HEADER_BYTES = 34;

type IdArray = Uint8ArrayConstructor | Uint16ArrayConstructor | Int32ArrayConstructor;
/** Type codes of the format, and the arrays that hold such ids. */
const idTypes: Record<number, IdArray> = { 1: Uint8Array, 4: Int32Array, 8: Uint16Array };

/** The narrowest type for ids below `vocabSize`. */
function typeFor(vocabSize: number): number {
  return vocabSize <= 2 ** 8 ? 1 : vocabSize <= 2 ** 16 ? 8 : 4;
}

export interface WriteTokenShardsOptions {
  /** Ids must be below it; decides how wide they are stored. */
  vocabSize: number;
  /** Added to every document; default none. */
  eos?: number;
  /** A shard is closed by the document that reaches it; default 2²⁸. */
  maxTokens?: number;
  /** Of the files, `<name>-00000.bin` and so on; default `"tokens"`. */
  name?: string;
  signal?: AbortSignal;
}

/**
 * Writes documents as shards into a folder, which is made if missing. A shard is written under a temporary name, flushed and renamed, its
 * index last: what has an index is whole. Whatever stops the writing, no unfinished file stays.
 *
 * @returns the paths of the shards, without suffix
 * @throws {OptionError} for an id out of the vocabulary, or if the folder has shards of that name
 * @throws {IoError} if the disk is full or not writable
 */
export async function writeTokenShards(
  folder: string,
  documents: AsyncIterable<ArrayLike<number>> | Iterable<ArrayLike<number>>,
  options: WriteTokenShardsOptions,
): Promise<string[]> {
  const { vocabSize, eos, maxTokens = 2 ** 28, name = "tokens", signal } = options;
  requireInteger("writeTokenShards", "vocabSize", vocabSize, 1);
  requireInteger("writeTokenShards", "maxTokens", maxTokens, 1);
  const end = eos === undefined ? [] : [eos];
  requireIds("writeTokenShards", end, vocabSize);
  await prepareFolder(folder, name);
  const paths: string[] = [];
  let shard: ShardWriter | undefined;
  try {
    for await (const document of documents) {
      signal?.throwIfAborted();
      requireIds("writeTokenShards", document, vocabSize);
      if (document.length + end.length === 0) continue;
      shard ??= await ShardWriter.open(join(folder, `${name}-${String(paths.length).padStart(5, "0")}`), vocabSize);
      await shard.add(document, end);
      if (shard.tokenCount < maxTokens) continue;
      paths.push(await shard.finish());
      shard = undefined;
    }
    if (shard) paths.push(await shard.finish());
    shard = undefined;
    return paths;
  } catch (cause) {
    throw writeFailure(folder, cause);
  } finally {
    await shard?.discard();
  }
}

async function prepareFolder(folder: string, name: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
    const taken = (await readdir(folder)).find((file) => file.startsWith(`${name}-`) && file.endsWith(".idx"));
    if (taken === undefined) return;
    throw new OptionError(`[writeTokenShards] ${folder} has ${taken} already. Choose an empty folder or another name.`);
  } catch (cause) {
    throw writeFailure(folder, cause);
  }
}

function writeFailure(folder: string, cause: unknown): unknown {
  const { code, syscall, message } = Object(cause) as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return cause;
  return new IoError(`[writeTokenShards] can't write into ${folder}: ${message}. Shards with an .idx file are whole.`, {
    cause,
  });
}

/** Bytes gathered before a write. */
const BUFFER_BYTES = 1 << 20;

class ShardWriter {
  tokenCount = 0;
  readonly #lengths: number[] = [];
  #pending: Buffer[] = [];
  #pendingBytes = 0;

  private constructor(
    readonly path: string,
    private readonly type: number,
    private readonly file: FileHandle,
  ) {}

  static async open(path: string, vocabSize: number): Promise<ShardWriter> {
    return new ShardWriter(path, typeFor(vocabSize), await open(`${path}.bin.partial`, "w"));
  }

  async add(document: ArrayLike<number>, end: readonly number[]): Promise<void> {
    const ids = new idTypes[this.type]!(document.length + end.length);
    ids.set(document);
    ids.set(end, document.length);
    this.#lengths.push(ids.length);
    this.tokenCount += ids.length;
    this.#pending.push(littleEndian(ids));
    this.#pendingBytes += ids.byteLength;
    if (this.#pendingBytes >= BUFFER_BYTES) await this.#flush();
  }

  async finish(): Promise<string> {
    await this.#flush();
    await this.file.sync();
    await this.file.close();
    const index = await open(`${this.path}.idx.partial`, "w");
    try {
      await index.writeFile(this.#index());
      await index.sync();
    } finally {
      await index.close();
    }
    await rename(`${this.path}.bin.partial`, `${this.path}.bin`);
    await rename(`${this.path}.idx.partial`, `${this.path}.idx`);
    return this.path;
  }

  async discard(): Promise<void> {
    await this.file.close().catch(() => undefined); // closed already, if the index could not be written
    for (const suffix of ["bin", "idx"]) await rm(`${this.path}.${suffix}.partial`, { force: true });
  }

  async #flush(): Promise<void> {
    await this.file.writeFile(Buffer.concat(this.#pending));
    this.#pending = [];
    this.#pendingBytes = 0;
  }

  #index(): Buffer {
    const count = this.#lengths.length;
    const bytes = Buffer.alloc(HEADER_BYTES + 4 * count + 8 * count + 8 * (count + 1));
    bytes.write(MAGIC, "latin1");
    bytes.writeBigUInt64LE(1n, 9);
    bytes.writeUInt8(this.type, 17);
    bytes.writeBigUInt64LE(BigInt(count), 18);
    bytes.writeBigUInt64LE(BigInt(count + 1), 26);
    const width = idTypes[this.type]!.BYTES_PER_ELEMENT;
    let offset = 0;
    for (const [i, length] of this.#lengths.entries()) {
      bytes.writeInt32LE(length, HEADER_BYTES + 4 * i);
      bytes.writeBigInt64LE(BigInt(offset * width), HEADER_BYTES + 4 * count + 8 * i);
      offset += length;
    }
    for (let i = 0; i <= count; i++) bytes.writeBigInt64LE(BigInt(i), HEADER_BYTES + 12 * count + 8 * i);
    return bytes;
  }
}

/** The bytes of an array in the order of the file. */
function littleEndian(ids: Uint8Array | Uint16Array | Int32Array): Buffer {
  const bytes = Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength);
  if (endianness() === "BE") swap(bytes, ids.BYTES_PER_ELEMENT);
  return bytes;
}

function swap(bytes: Buffer, width: number): void {
  if (width === 2) bytes.swap16();
  if (width === 4) bytes.swap32();
}

interface Shard {
  path: string;
  file: FileHandle;
  array: IdArray;
  /** First token of each document in the shard, and the end. */
  starts: Float64Array;
  /** Documents and tokens in the shards before. */
  firstDocument: number;
  firstToken: number;
  digest: string;
}

/**
 * Opens shards, given with or without suffix, as one set of documents and one stream of their tokens. `close()` it, or let `await using` do so.
 *
 * @throws {IoError} if a file can't be read
 * @throws {FormatError} if an index is damaged, of another version or type, or doesn't fit its ids
 *
 * @example
 * await using shards = await openTokenShards(["corpus/tokens-00000", "corpus/tokens-00001"]);
 * const ids = await shards.read(1_000_000, 2049);
 */
export async function openTokenShards(paths: readonly string[]): Promise<TokenShards> {
  if (paths.length === 0) throw new OptionError("[openTokenShards] expected the paths of shards; received none.");
  const shards: Shard[] = [];
  try {
    for (const path of paths) shards.push(await openShard(path.replace(/\.(?:bin|idx)$/, ""), shards.at(-1)));
    return new TokenShards(shards);
  } catch (cause) {
    for (const { file } of shards) await file.close();
    throw cause;
  }
}

async function openShard(path: string, before: Shard | undefined): Promise<Shard> {
  let file: FileHandle | undefined;
  try {
    const index = await readFile(`${path}.idx`);
    const { array, starts } = parseIndex(`${path}.idx`, index);
    file = await open(`${path}.bin`);
    const { size } = await file.stat();
    const expected = starts.at(-1)! * array.BYTES_PER_ELEMENT;
    if (size !== expected) {
      throw new FormatError(
        `[openTokenShards] ${path}.bin has ${size} bytes but its index tells of ${expected}. Copy both files again.`,
      );
    }
    const head = Buffer.alloc(Math.min(size, 1 << 16));
    await file.read(head, 0, head.length, 0);
    const digest = createHash("sha256").update(index).update(head).digest("hex");
    const firstDocument = before ? before.firstDocument + before.starts.length - 1 : 0;
    const firstToken = before ? before.firstToken + before.starts.at(-1)! : 0;
    return { path, file, array, starts, firstDocument, firstToken, digest };
  } catch (cause) {
    await file?.close();
    throw readFailure("openTokenShards", path, cause);
  }
}

function parseIndex(path: string, bytes: Buffer): { array: IdArray; starts: Float64Array } {
  const fail = (what: string): never => {
    throw new FormatError(`[openTokenShards] ${path}: ${what}.`);
  };
  if (bytes.length < HEADER_BYTES || bytes.toString("latin1", 0, 9) !== MAGIC) {
    return fail(`expected the index of a Megatron data set, which begins with ${JSON.stringify(MAGIC)}`);
  }
  const version = bytes.readBigUInt64LE(9);
  if (version !== 1n) return fail(`expected version 1; received ${version}`);
  const type = bytes.readUInt8(17);
  const array = idTypes[type];
  if (array === undefined)
    return fail(`expected ids of type ${Object.keys(idTypes).join(", ")}; received type ${type}`);
  const sequences = Number(bytes.readBigUInt64LE(18));
  const documents = Number(bytes.readBigUInt64LE(26)) - 1;
  const expected = HEADER_BYTES + 12 * sequences + 8 * (documents + 1);
  if (documents < 0 || bytes.length < expected) {
    return fail(`${sequences} sequences of ${documents} documents need ${expected} bytes; received ${bytes.length}`);
  }
  const ends = new Float64Array(sequences + 1);
  for (let i = 0; i < sequences; i++) {
    const length = bytes.readInt32LE(HEADER_BYTES + 4 * i);
    const offset = Number(bytes.readBigInt64LE(HEADER_BYTES + 4 * sequences + 8 * i));
    if (length < 0 || offset !== ends[i]! * array.BYTES_PER_ELEMENT) {
      return fail(
        `sequence ${i} has length ${length} at byte ${offset}; expected it at ${ends[i]! * array.BYTES_PER_ELEMENT}`,
      );
    }
    ends[i + 1] = ends[i]! + length;
  }
  const starts = Float64Array.from({ length: documents + 1 }, (_, i) => {
    const sequence = Number(bytes.readBigInt64LE(HEADER_BYTES + 12 * sequences + 8 * i));
    return ends[sequence] ?? Number.NaN;
  });
  const ordered = starts.every((start, i) => start >= (starts[i - 1] ?? 0));
  if (!ordered || starts[0] !== 0 || starts[documents] !== ends[sequences])
    return fail("its documents are not in order");
  return { array, starts };
}

/** Documents on disk. Made by `openTokenShards`. */
export class TokenShards implements DocumentSet {
  readonly count: number;
  readonly tokenCount: number;
  /** Of the indices and the first 64 KiB of ids of each shard. */
  readonly fingerprint: string;
  readonly #shards: readonly Shard[];

  /** @internal */
  constructor(shards: readonly Shard[]) {
    const last = shards.at(-1)!;
    this.#shards = shards;
    this.count = last.firstDocument + last.starts.length - 1;
    this.tokenCount = last.firstToken + last.starts.at(-1)!;
    this.fingerprint = createHash("sha256")
      .update(shards.map(({ digest }) => digest).join())
      .digest("hex");
  }

  /** Place of a document's first token in the stream; that of `count` is the end. */
  documentStart(index: number): number {
    if (index === this.count) return this.tokenCount;
    const shard = this.#shardOf("documentStart", index, "document", this.count, "firstDocument");
    return shard.firstToken + shard.starts[index - shard.firstDocument]!;
  }

  document(index: number): Promise<Int32Array> {
    const start = this.documentStart(index);
    return this.read(start, this.documentStart(index + 1) - start);
  }

  /** Tokens `start .. start + length − 1` of the stream of all documents one after the other. @throws {IoError} if the disk fails */
  async read(start: number, length: number): Promise<Int32Array> {
    requireInteger("TokenShards.read", "start", start, 0);
    requireInteger("TokenShards.read", "length", length, 0);
    if (start + length > this.tokenCount) {
      throw new OptionError(
        `[TokenShards.read] tokens ${start}..${start + length - 1} were asked for; there are ${this.tokenCount}.`,
      );
    }
    const ids = new Int32Array(length);
    for (let done = 0; done < length; ) {
      const shard = this.#shardOf("read", start + done, "token", this.tokenCount, "firstToken");
      const from = start + done - shard.firstToken;
      const count = Math.min(length - done, shard.starts.at(-1)! - from);
      ids.set(await readIds(shard, from, count), done);
      done += count;
    }
    return ids;
  }

  async close(): Promise<void> {
    for (const { file } of this.#shards) await file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The last shard that begins at or before a place. */
  #shardOf(where: string, place: number, what: string, count: number, first: "firstDocument" | "firstToken"): Shard {
    if (!Number.isSafeInteger(place) || place < 0 || place >= count) {
      throw new OptionError(`[TokenShards.${where}] there are ${what}s 0..${count - 1}; received ${place}.`);
    }
    return this.#shards.findLast((shard) => shard[first] <= place)!;
  }
}

async function readIds({ path, file, array }: Shard, from: number, count: number): Promise<TokenArray> {
  const width = array.BYTES_PER_ELEMENT;
  const bytes = Buffer.from(new ArrayBuffer(count * width));
  try {
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await file.read(bytes, done, bytes.length - done, from * width + done);
      if (bytesRead === 0) throw new FormatError(`[TokenShards.read] ${path}.bin has become shorter. Open it again.`);
      done += bytesRead;
    }
  } catch (cause) {
    throw readFailure("TokenShards.read", `${path}.bin`, cause);
  }
  if (endianness() === "BE") swap(bytes, width);
  return new array(bytes.buffer, bytes.byteOffset, count);
}
