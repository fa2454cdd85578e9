/**
 * CRC-32C (Castagnoli, reflected polynomial 0x82f63b78; RFC 3720 §12.1), the checksum of TFRecord files.
 */

let table: Uint32Array | undefined;

/** The byte table, made on first use so that importing the module does no work. */
function byteTable(): Uint32Array {
  if (table) return table;
  table = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    table[byte] = crc;
  }
  return table;
}

/**
 * CRC-32C of `bytes` as an unsigned 32-bit number.
 *
 * @example
 * crc32c(new TextEncoder().encode("123456789")); // 0xe3069283
 */
export function crc32c(bytes: Uint8Array): number {
  const lookup = byteTable();
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = lookup[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/**
 * The masked form that TFRecord stores: rotate right by 15 bits, add a constant. A checksum of data that itself
 * contains checksums would otherwise be weak.
 */
export function maskedCrc32c(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
