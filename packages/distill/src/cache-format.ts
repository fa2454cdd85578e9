/**
 * The layout of a file of a teacher's predictions, LKD1 (distillation.md §4.1), all little-endian:
 *
 *     "LKD1", u32 version 1, u32 vocabulary, u32 k, u64 tokens, f32 lo, u32 flags, 32 bytes SHA-256 of the tokenizer
 *     per token: k ids (u32, or u16), k codes of log p (u16; not of drawn tokens), code of the tail's log mass (u16, if kept), zeros up to a multiple of 4
 *
 * Flags: 1 a tail, 2 ids of 16 bits, 4 drawn tokens, each of weight 1/k. Entry n is the teacher's distribution for token n, given what stands before it in its
 * document; a document's first token, which nobody predicts, has zeros.
 */
import { FormatError, OptionError } from "@llmeff/tensor";

export const HEADER_BYTES = 64;
const MAGIC = "LKD1";
const VERSION = 1;
const flag = { tail: 1, narrowIds: 2, sampled: 4 } as const;
const knownFlags = flag.tail | flag.narrowIds | flag.sampled;

export interface CacheHeader {
  vocabSize: number;
  /** Tokens kept for each position. */
  k: number;
  /** Of the stream. */
  tokenCount: number;
  /** Lowest log-probability that is told apart. */
  lo: number;
  /** Whether the log of the mass outside the k tokens is kept. */
  tail: boolean;
  /** Ids of 16 bits. */
  narrowIds: boolean;
  /** Drawn tokens instead of the likeliest. */
  sampled: boolean;
  /** SHA-256 of the tokenizer, in hexadecimal. */
  tokenizerHash: string;
}

/** @throws {OptionError} for a field outside its domain */
export function checkHeader(where: string, header: CacheHeader): void {
  const { vocabSize, k, tokenCount, lo, tail, narrowIds, sampled, tokenizerHash } = header;
  for (const [name, value, most] of [
    ["vocabSize", vocabSize, 2 ** 32 - 1],
    ["k", k, sampled ? 2 ** 32 - 1 : vocabSize],
    ["tokenCount", tokenCount, Number.MAX_SAFE_INTEGER],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 1 || value > most) {
      throw new OptionError(`[${where}] ${name} must be an integer in 1..${most}; received ${value}.`);
    }
  }
  if (!(lo < 0 && Number.isFinite(lo))) throw new OptionError(`[${where}] lo must be below 0; received ${lo}.`);
  if (sampled && tail) throw new OptionError(`[${where}] drawn tokens have no tail; received both.`);
  if (narrowIds && vocabSize > 2 ** 16) {
    throw new OptionError(`[${where}] ids of 16 bits need a vocabulary of at most 65536; received ${vocabSize}.`);
  }
  if (!/^[0-9a-f]{64}$/.test(tokenizerHash)) {
    throw new OptionError(
      `[${where}] tokenizerHash must be a SHA-256 in hexadecimal; received ${JSON.stringify(tokenizerHash)}.`,
    );
  }
}

/** Bytes of an entry. */
export function entryBytes({ k, narrowIds, sampled, tail }: CacheHeader): number {
  const used = k * (narrowIds ? 2 : 4) + (sampled ? 0 : 2 * k) + (tail ? 2 : 0);
  return Math.ceil(used / 4) * 4;
}

export function encodeHeader(header: CacheHeader): Buffer {
  const { vocabSize, k, tokenCount, lo, tail, narrowIds, sampled, tokenizerHash } = header;
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(MAGIC, "latin1");
  bytes.writeUInt32LE(VERSION, 4);
  bytes.writeUInt32LE(vocabSize, 8);
  bytes.writeUInt32LE(k, 12);
  bytes.writeBigUInt64LE(BigInt(tokenCount), 16);
  bytes.writeFloatLE(lo, 24);
  bytes.writeUInt32LE((tail ? flag.tail : 0) | (narrowIds ? flag.narrowIds : 0) | (sampled ? flag.sampled : 0), 28);
  bytes.write(tokenizerHash, 32, "hex");
  return bytes;
}

/** @throws {FormatError} if the bytes don't begin such a file */
export function decodeHeader(path: string, bytes: Buffer): CacheHeader {
  const fail = (what: string): never => {
    throw new FormatError(`[openTeacherCache] ${path}: ${what}.`);
  };
  if (bytes.length < HEADER_BYTES || bytes.toString("latin1", 0, 4) !== MAGIC) {
    return fail(`expected a file that begins with ${MAGIC} and a header of ${HEADER_BYTES} bytes`);
  }
  const version = bytes.readUInt32LE(4);
  if (version !== VERSION) return fail(`expected version ${VERSION}; received ${version}`);
  const flags = bytes.readUInt32LE(28);
  if ((flags & ~knownFlags) !== 0) return fail(`expected flags of 1, 2 and 4; received ${flags}`);
  const header = {
    vocabSize: bytes.readUInt32LE(8),
    k: bytes.readUInt32LE(12),
    tokenCount: Number(bytes.readBigUInt64LE(16)),
    lo: bytes.readFloatLE(24),
    tail: (flags & flag.tail) !== 0,
    narrowIds: (flags & flag.narrowIds) !== 0,
    sampled: (flags & flag.sampled) !== 0,
    tokenizerHash: bytes.toString("hex", 32, 64),
  };
  try {
    checkHeader("openTeacherCache", header);
  } catch (cause) {
    throw new FormatError(`[openTeacherCache] ${path}: ${(cause as Error).message}`, { cause });
  }
  return header;
}
