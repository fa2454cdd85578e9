import { describe, expect, it } from "vitest";
import { editDistance, nearestName } from "./edit-distance.js";

describe("editDistance", () => {
  it.each([
    ["", "", 0],
    ["abc", "", 3],
    ["kitten", "sitting", 3],
    ["dModle", "dModel", 1], // two letters swapped
    ["steps", "step", 1],
  ])("of %j and %j is %d, either way round", (a, b, distance) => {
    expect(editDistance(a, b)).toBe(distance);
    expect(editDistance(b, a)).toBe(distance);
  });
});

describe("nearestName", () => {
  const names = ["dModel", "numLayers", "numHeads", "headDim", "w1", "w2"];
  it.each([
    ["dmodel", "dModel"],
    ["n_heads", "numHeads"],
    ["layers", "numLayers"],
    ["w3", "w1"],
    ["temperature", undefined],
  ])("for %j is %j", (word, expected) => expect(nearestName(word, names)).toBe(expected));
});
