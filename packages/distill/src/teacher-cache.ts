/** Files of a teacher's predictions: written once, read by position in every run that learns from them. */
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { FormatError, IoError, OptionError } from "@llmeff/tensor";
import { type CacheHeader, checkHeader, decodeHeader, encodeHeader, entryBytes, HEADER_BYTES } from "./cache-format.js";
import { decodeLogProb, encodeLogProb } from "./log-prob-codes.js";

/** Predictions for some tokens one after the other. */
export interface CachedPredictions {
  /** `[n, k]`, by descending probability unless drawn. */
  ids: Int32Array;
  /** `[n, k]`; not of drawn tokens. */
  logProbs?: Float32Array | Float64Array | undefined;
  /** `[n]`: log of the mass outside the k tokens, if kept. */
  tailLogProb?: Float32Array | Float64Array | undefined;
}

/** Log-probability of certainty, and what rounding adds to it. */
const MOST = 1e-3;

export type TeacherCacheOptions = Pick<CacheHeader, "vocabSize" | "k" | "tokenCount" | "tokenizerHash"> &
  Partial<Pick<CacheHeader, "lo" | "tail" | "narrowIds" | "sampled">>;

function failure(where: string, path: string, cause: unknown): unknown {
  const { syscall, message } = Object(cause) as NodeJS.ErrnoException;
  return syscall === undefined ? cause : new IoError(`[${where}] ${path}: ${message}.`, { cause });
}

/**
 * Writes a cache, entry by entry in the order of the stream. The file gets its name when it is complete.
 *
 * @example
 * await using writer = await TeacherCacheWriter.open(path, { vocabSize, k: 32, tokenCount, tokenizerHash });
 * await writer.append(predictions);
 * await writer.finish();
 */
export class TeacherCacheWriter {
  readonly header: CacheHeader;
  /** Entries so far. */
  count = 0;
  readonly #path: string;
  readonly #file: FileHandle;
  #open = true;

  private constructor(path: string, file: FileHandle, header: CacheHeader) {
    this.#path = path;
    this.#file = file;
    this.header = header;
  }

  /**
   * @param options.lo - default −24
   * @param options.tail - keep the mass outside the k tokens; default true unless drawn
   * @param options.narrowIds - default where the vocabulary has at most 65,536 tokens
   * @param options.sampled - default false
   * @throws {OptionError} for an option outside its domain
   * @throws {IoError} if the file can't be written
   */
  static async open(path: string, options: TeacherCacheOptions): Promise<TeacherCacheWriter> {
    const { lo = -24, sampled = false, tail = !sampled, narrowIds = options.vocabSize <= 2 ** 16 } = options;
    const { vocabSize, k, tokenCount, tokenizerHash } = options;
    const header = { vocabSize, k, tokenCount, tokenizerHash, lo, tail, narrowIds, sampled };
    checkHeader("TeacherCacheWriter", header);
    try {
      const file = await open(`${path}.partial`, "w");
      const writer = new TeacherCacheWriter(path, file, header);
      await file.writeFile(encodeHeader(header));
      return writer;
    } catch (cause) {
      throw failure("TeacherCacheWriter", path, cause);
    }
  }

  /** @throws {OptionError} if the arrays don't have the form that was said, an id is no token, a log-probability none, or the stream has fewer */
  async append(predictions: CachedPredictions): Promise<void> {
    const count = this.#checked(predictions);
    const bytes = Buffer.alloc(count * entryBytes(this.header));
    for (let i = 0; i < count; i++) this.#encode(bytes, i, predictions);
    await this.#write(bytes, count);
  }

  /** Entries of tokens that nobody predicts. */
  async skip(count: number): Promise<void> {
    this.#requireRoom(count);
    await this.#write(Buffer.alloc(count * entryBytes(this.header)), count);
  }

  /** Gives the file its name. @throws {OptionError} if entries are missing */
  async finish(): Promise<void> {
    const { tokenCount } = this.header;
    if (this.count !== tokenCount) {
      throw new OptionError(`[TeacherCacheWriter] ${tokenCount} tokens were announced; ${this.count} were written.`);
    }
    try {
      await this.#file.sync();
      await this.#file.close();
      this.#open = false;
      await rename(`${this.#path}.partial`, this.#path);
    } catch (cause) {
      throw failure("TeacherCacheWriter", this.#path, cause);
    }
  }

  /** Removes what is unfinished. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#open) await this.#file.close();
    this.#open = false;
    await rm(`${this.#path}.partial`, { force: true });
  }

  #requireRoom(count: number): void {
    const { tokenCount } = this.header;
    if (this.count + count > tokenCount) {
      throw new OptionError(
        `[TeacherCacheWriter] ${tokenCount} tokens were announced; ${this.count + count} would be written.`,
      );
    }
  }

  /** Number of entries. */
  #checked({ ids, logProbs, tailLogProb }: CachedPredictions): number {
    const { k, vocabSize, sampled, tail } = this.header;
    const count = ids.length / k;
    const fits =
      Number.isInteger(count) &&
      (sampled ? logProbs === undefined : logProbs?.length === ids.length) &&
      (tail ? tailLogProb?.length === count : tailLogProb === undefined);
    if (!fits) {
      throw new OptionError(
        `[TeacherCacheWriter] expected ${k} ids${sampled ? "" : " and log-probabilities"} a token${tail ? " and a tail" : ""}; received ${ids.length}, ${logProbs?.length ?? "none"} and ${tailLogProb?.length ?? "none"}.`,
      );
    }
    const wrong = ids.find((id) => id < 0 || id >= vocabSize);
    if (wrong !== undefined) {
      throw new OptionError(`[TeacherCacheWriter] ids must be in 0..${vocabSize - 1}; received ${wrong}.`);
    }
    const bad = [logProbs, tailLogProb].flatMap((values) => values?.find((value) => !(value <= MOST)) ?? []);
    if (bad.length > 0) {
      throw new OptionError(
        `[TeacherCacheWriter] log-probabilities must be at most 0; received ${bad[0]}. Did the teacher diverge?`,
      );
    }
    this.#requireRoom(count);
    return count;
  }

  #encode(bytes: Buffer, entry: number, { ids, logProbs, tailLogProb }: CachedPredictions): void {
    const { k, lo, narrowIds } = this.header;
    let at = entry * entryBytes(this.header);
    for (let j = 0; j < k; j++) {
      const id = ids[entry * k + j]!;
      at = narrowIds ? bytes.writeUInt16LE(id, at) : bytes.writeUInt32LE(id, at);
    }
    if (logProbs) {
      for (let j = 0; j < k; j++) at = bytes.writeUInt16LE(encodeLogProb(logProbs[entry * k + j]!, lo), at);
    }
    if (tailLogProb) bytes.writeUInt16LE(encodeLogProb(tailLogProb[entry]!, lo), at);
  }

  async #write(bytes: Buffer, count: number): Promise<void> {
    try {
      await this.#file.writeFile(bytes);
    } catch (cause) {
      throw failure("TeacherCacheWriter", this.#path, cause);
    }
    this.count += count;
  }
}

/** What a run expects of a cache. */
export type ExpectedCache = Pick<CacheHeader, "vocabSize" | "tokenCount" | "tokenizerHash">;

/**
 * Opens a cache for reading.
 *
 * @param expected - of the run: a cache of another vocabulary, tokenizer or stream is refused
 * @throws {FormatError} naming what differs, or if the file is damaged or cut off
 * @throws {IoError} if it can't be read
 */
export async function openTeacherCache(path: string, expected: ExpectedCache): Promise<TeacherCache> {
  let file: FileHandle | undefined;
  try {
    file = await open(path);
    const bytes = Buffer.alloc(HEADER_BYTES);
    const { bytesRead } = await file.read(bytes, 0, HEADER_BYTES, 0);
    const header = decodeHeader(path, bytes.subarray(0, bytesRead));
    for (const name of ["vocabSize", "tokenCount", "tokenizerHash"] as const) {
      if (header[name] === expected[name]) continue;
      throw new FormatError(
        `[openTeacherCache] ${path} has ${name} ${header[name]}; this run has ${expected[name]}. Label this run's corpus with its tokenizer.`,
      );
    }
    const { size } = await file.stat();
    const wanted = HEADER_BYTES + header.tokenCount * entryBytes(header);
    if (size !== wanted) {
      throw new FormatError(
        `[openTeacherCache] ${path} has ${size} bytes; ${header.tokenCount} tokens need ${wanted}. Is it complete?`,
      );
    }
    return new TeacherCache(path, file, header);
  } catch (cause) {
    await file?.close();
    throw failure("openTeacherCache", path, cause);
  }
}

/** An open cache. Made by `openTeacherCache`; `close()` it, or let `await using` do so. */
export class TeacherCache {
  /** @internal */
  constructor(
    readonly path: string,
    private readonly file: FileHandle,
    readonly header: CacheHeader,
  ) {}

  /**
   * Predictions for the tokens `start .. start + count − 1` of the stream.
   *
   * @throws {OptionError} if the stream has no such tokens
   * @throws {FormatError} if an id is no token
   */
  async read(start: number, count: number): Promise<CachedPredictions> {
    const { tokenCount, k, sampled, tail } = this.header;
    const counts = [start, count].every((value) => Number.isSafeInteger(value) && value >= 0);
    if (!counts || start + count > tokenCount) {
      throw new OptionError(
        `[TeacherCache.read] ${count} tokens from ${start} on were asked for; there are ${tokenCount}.`,
      );
    }
    const bytes = await this.#bytes(start, count);
    const ids = new Int32Array(count * k);
    const logProbs = sampled ? undefined : new Float32Array(count * k);
    const tailLogProb = tail ? new Float32Array(count) : undefined;
    for (let i = 0; i < count; i++) this.#decode(bytes, i, { ids, logProbs, tailLogProb });
    const wrong = ids.findIndex((id) => id < 0 || id >= this.header.vocabSize);
    if (wrong >= 0) {
      throw new FormatError(
        `[TeacherCache.read] ${this.path}: token ${start + Math.floor(wrong / k)} has id ${ids[wrong]! >>> 0} of a vocabulary of ${this.header.vocabSize}. The file is damaged.`,
      );
    }
    return { ids, logProbs, tailLogProb };
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #bytes(start: number, count: number): Promise<Buffer> {
    const width = entryBytes(this.header);
    const bytes = Buffer.alloc(count * width);
    try {
      for (let done = 0; done < bytes.length; ) {
        const at = HEADER_BYTES + start * width + done;
        const { bytesRead } = await this.file.read(bytes, done, bytes.length - done, at);
        if (bytesRead === 0)
          throw new FormatError(`[TeacherCache.read] ${this.path} has become shorter. Open it again.`);
        done += bytesRead;
      }
    } catch (cause) {
      throw failure("TeacherCache.read", this.path, cause);
    }
    return bytes;
  }

  #decode(bytes: Buffer, entry: number, { ids, logProbs, tailLogProb }: CachedPredictions): void {
    const { k, lo, narrowIds } = this.header;
    let at = entry * entryBytes(this.header);
    for (let j = 0; j < k; j++) {
      ids[entry * k + j] = narrowIds ? bytes.readUInt16LE(at) : bytes.readUInt32LE(at);
      at += narrowIds ? 2 : 4;
    }
    for (let j = 0; logProbs && j < k; j++, at += 2)
      logProbs[entry * k + j] = decodeLogProb(bytes.readUInt16LE(at), lo);
    if (tailLogProb) tailLogProb[entry] = decodeLogProb(bytes.readUInt16LE(at), lo);
  }
}
