import { describe, expect, it } from "vitest";
import { differences, mergePatch } from "./merge.js";

describe("mergePatch", () => {
  // Cases of RFC 7396, appendix A.
  it.each([
    [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
    [{ a: "b", b: "c" }, { a: null }, { b: "c" }],
    [{ a: ["b"] }, { a: "c" }, { a: "c" }],
    [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
    [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
    [["a"], ["c"], ["c"]],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ])("of %j and %j is %j", (base, patch, merged) => {
    const before = JSON.stringify(base);
    expect(mergePatch(base, patch)).toEqual(merged);
    expect(JSON.stringify(base)).toBe(before);
  });
});

describe("differences", () => {
  it("finds the leaves that differ, whatever the order of keys", () => {
    expect(differences({ a: 1, b: [1, { c: 2 }] }, { b: [1, { c: 3 }], a: 1, d: null })).toEqual([
      { path: "b[1].c", a: 2, b: 3 },
      { path: "d", a: undefined, b: null },
    ]);
    expect(differences({ a: [1, 2] }, { a: [1, 2] })).toEqual([]);
    expect(differences([1], [1, 2])).toEqual([{ path: "(top level)", a: [1], b: [1, 2] }]);
  });
});
