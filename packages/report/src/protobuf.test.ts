import { FormatError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MessageWriter, readFields } from "./protobuf.js";

describe("MessageWriter", () => {
  it("encodes the examples of the protocol buffer documentation", () => {
    // https://protobuf.dev/programming-guides/encoding/: field 1 = 150; field 2 = "testing"; field 3 = { field 1 = 150 }
    const inner = new MessageWriter().varint(1, 150);
    expect(Buffer.from(inner.finish()).toString("hex")).toBe("089601");
    expect(Buffer.from(new MessageWriter().string(2, "testing").finish()).toString("hex")).toBe("120774657374696e67");
    expect(Buffer.from(new MessageWriter().message(3, inner).finish()).toString("hex")).toBe("1a03089601");
  });
});

describe("readFields", () => {
  it("reads what was written", () => {
    fc.assert(
      fc.property(
        fc.maxSafeNat(),
        fc.double(),
        fc.float(),
        fc.string({ unit: "grapheme" }),
        (int, double, float, text) => {
          const bytes = new MessageWriter().varint(1, int).double(2, double).float(3, float).string(300, text).finish();
          const fields = [...readFields(bytes)];
          expect(fields.map((f) => f.field)).toEqual([1, 2, 3, 300]);
          expect(fields.slice(0, 3).map((f) => f.value)).toEqual([int, double, float]);
          expect(new TextDecoder().decode(fields[3]!.value as Uint8Array)).toBe(text);
        },
      ),
    );
  });

  it("refuses bytes that end inside a field", () => {
    const bytes = new MessageWriter().string(1, "hello").finish();
    for (let cut = 1; cut < bytes.length; cut++) {
      expect(() => [...readFields(bytes.subarray(0, cut))]).toThrow(FormatError);
    }
  });

  it("ends on random bytes, with fields or a FormatError", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        try {
          expect([...readFields(bytes)].length).toBeLessThanOrEqual(bytes.length);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
    );
  });
});
