import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatJson } from "./format-json.js";

describe("formatJson", () => {
  it("keeps lists of numbers on one line and the rest apart", () => {
    const value = { rates: [0.001, -2e-7], names: ["a", "b"], empty: [], nested: [[1, 2], [3]], odd: "[\n 1\n ]" };
    expect(formatJson(value)).toBe(
      '{\n  "rates": [0.001, -2e-7],\n  "names": [\n    "a",\n    "b"\n  ],\n  "empty": [],\n' +
        '  "nested": [\n    [1, 2],\n    [3]\n  ],\n  "odd": "[\\n 1\\n ]"\n}\n',
    );
  });

  it("means the same as it was given", () => {
    const property = fc.property(fc.jsonValue(), (value) => {
      expect(JSON.parse(formatJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
    });
    fc.assert(property);
  });
});
