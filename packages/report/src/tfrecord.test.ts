import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeRecord, scanRecords } from "./tfrecord.js";

const join = (parts: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(parts));

describe("encodeRecord", () => {
  it("lays out length, checksums and data as the format says", () => {
    const framed = Buffer.from(encodeRecord(Buffer.from("123456789")));
    // masked crc: 0xe3069283 rotated right by 15 is 0x2507c60d; plus 0xa282ead8 is 0xc78ab0e5
    expect(framed.readUInt32LE(framed.length - 4)).toBe(0xc78ab0e5);
    expect(framed.readBigUInt64LE(0)).toBe(9n);
    expect(framed.subarray(12, 21).toString()).toBe("123456789");
    expect(framed.length).toBe(8 + 4 + 9 + 4);
  });
});

describe("scanRecords", () => {
  const blobs = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 });

  it("gives back what was framed", () => {
    fc.assert(
      fc.property(blobs, (records) => {
        const scan = scanRecords(join(records.map(encodeRecord)));
        expect(scan.problem).toBeUndefined();
        expect(scan.records.map((record) => [...record])).toEqual(records.map((record) => [...record]));
      }),
    );
  });

  it("reads a file cut anywhere up to the last whole record", () => {
    fc.assert(
      fc.property(blobs, fc.double({ min: 0, max: 1, noNaN: true }), (records, share) => {
        const framed = records.map(encodeRecord);
        const bytes = join(framed);
        const cut = Math.floor(share * bytes.length);
        const scan = scanRecords(bytes.subarray(0, cut));
        let whole = 0;
        let size = 0;
        while (whole < framed.length && size + framed[whole]!.length <= cut) size += framed[whole++]!.length;
        expect(scan.records.length).toBe(whole);
        expect(scan.validBytes).toBe(size);
        expect(scan.problem === undefined).toBe(size === cut);
      }),
    );
  });

  it("stops at any flipped bit", () => {
    const bytes = join([encodeRecord(Buffer.from("first")), encodeRecord(Buffer.from("second"))]);
    const first = encodeRecord(Buffer.from("first")).length;
    for (let bit = first * 8; bit < bytes.length * 8; bit++) {
      const damaged = bytes.slice();
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      const scan = scanRecords(damaged);
      expect(scan.records.length).toBe(1);
      expect(scan.problem).toContain(`at byte ${first}`);
    }
  });

  it("does not take a length of 2^64 - 1 for a reason to allocate", () => {
    const bytes = encodeRecord(new Uint8Array());
    bytes.fill(0xff, 0, 8);
    expect(scanRecords(bytes).records).toEqual([]);
  });
});
