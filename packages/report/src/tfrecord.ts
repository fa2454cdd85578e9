/**
 * TFRecord framing: `length (uint64 LE) · masked CRC-32C of the length · data · masked CRC-32C of the data`, repeated.
 * The file has no header and no end mark, so a file cut anywhere is readable up to the last whole record.
 */
import { maskedCrc32c } from "./crc32c.js";

const HEADER_BYTES = 12;
const FOOTER_BYTES = 4;

/** One framed record. */
export function encodeRecord(data: Uint8Array): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES + data.length + FOOTER_BYTES);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc32c(out.subarray(0, 8)), true);
  out.set(data, HEADER_BYTES);
  view.setUint32(HEADER_BYTES + data.length, maskedCrc32c(data), true);
  return out;
}

/** What a TFRecord file holds up to its first defect. */
export interface RecordScan {
  /** Views into the scanned bytes, one a record. */
  readonly records: readonly Uint8Array[];
  /** Bytes that the whole records take; the file can be cut here. */
  readonly validBytes: number;
  /** Why reading stopped before the end of the bytes; absent if it did not. */
  readonly problem?: string;
}

/** Reads records until the end of the bytes or the first one that is cut short or fails its checksum. */
export function scanRecords(bytes: Uint8Array): RecordScan {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const records: Uint8Array[] = [];
  let offset = 0;
  const stop = (problem: string): RecordScan => ({
    records,
    validBytes: offset,
    problem: `${problem} at byte ${offset}`,
  });

  while (offset < bytes.length) {
    const left = bytes.length - offset;
    if (left < HEADER_BYTES) return stop("a record header is cut short");
    if (view.getUint32(offset + 8, true) !== maskedCrc32c(bytes.subarray(offset, offset + 8))) {
      return stop("the checksum of a record length is wrong");
    }
    const length = view.getBigUint64(offset, true);
    if (length > BigInt(left - HEADER_BYTES - FOOTER_BYTES)) return stop("a record is cut short");
    const start = offset + HEADER_BYTES;
    const end = start + Number(length);
    const data = bytes.subarray(start, end);
    if (view.getUint32(end, true) !== maskedCrc32c(data)) return stop("the checksum of a record is wrong");
    records.push(data);
    offset = end + FOOTER_BYTES;
  }
  return { records, validBytes: offset };
}
