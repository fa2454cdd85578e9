import { describe, expect, it } from "vitest";
import { crc32c, maskedCrc32c } from "./crc32c.js";

const ascii = (text: string) => new TextEncoder().encode(text);

describe("crc32c", () => {
  it("gives the check value of the catalogue of CRC algorithms", () => {
    expect(crc32c(ascii("123456789"))).toBe(0xe3069283);
  });

  it("gives the test vectors of RFC 3720 appendix B.4", () => {
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => 31 - i))).toBe(0x113fdb5c);
  });

  it("is 0 for no bytes", () => {
    expect(crc32c(new Uint8Array())).toBe(0);
  });
});

describe("maskedCrc32c", () => {
  it("unmasks to the plain checksum", () => {
    // rotate left by 15 after taking the constant away: the inverse as the TFRecord format states it
    const rotated = (maskedCrc32c(ascii("123456789")) - 0xa282ead8) >>> 0;
    expect(((rotated >>> 17) | (rotated << 15)) >>> 0).toBe(0xe3069283);
  });
});
