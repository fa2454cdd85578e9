import { expect, it } from "vitest";
import { Turns } from "./turns.js";

it("lets work go on together, and alone what wants to be, in the order of the calls", async () => {
  const turns = new Turns();
  const told: string[] = [];
  const work =
    (name: string, fails = false) =>
    async () => {
      told.push(`${name} begins`);
      await new Promise((resolve) => setImmediate(resolve));
      told.push(`${name} ends`);
      if (fails) throw new Error(name);
      return name;
    };
  const results = await Promise.allSettled([
    turns.together(work("a")),
    turns.together(work("b", true)),
    turns.alone(work("c", true)),
    turns.alone(work("d")),
    turns.together(work("e")),
    turns.together(work("f")),
  ]);
  expect(told).toEqual([
    ...["a begins", "b begins", "a ends", "b ends"],
    ...["c begins", "c ends", "d begins", "d ends"],
    ...["e begins", "f begins", "e ends", "f ends"],
  ]);
  expect(results.map(({ status }) => status)).toEqual([
    ...["fulfilled", "rejected", "rejected"],
    ...["fulfilled", "fulfilled", "fulfilled"],
  ]);
});
