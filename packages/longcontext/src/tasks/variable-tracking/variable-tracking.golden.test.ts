import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { describeGolden } from "../../../../../test/golden.js";
import { holdersOf } from "./assignments.js";

interface Golden {
  variableTracking: { text: string; value: string; answer: string[] }[];
}

describeGolden("longcontext.json", (path) => {
  const { variableTracking } = JSON.parse(readFileSync(path, "utf8")) as Golden;

  it.each(variableTracking.map((entry, i) => [i, entry] as const))("variableTracking %i", (_, entry) => {
    expect(holdersOf(entry.text.split("\n"), entry.value)).toEqual(entry.answer);
  });
});
