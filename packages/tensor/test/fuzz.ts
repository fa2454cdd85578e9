import { memory, sync } from "../src/index.js";
import { fuzzCase } from "./fuzz/cases.js";
import { Dice, type Report } from "./fuzz/dice.js";
import { functions, fuzzFunction } from "./fuzz/functions.js";
import { fuzzHandles } from "./fuzz/handles.js";
import { fuzzOverlap } from "./fuzz/overlaps.js";

export interface FuzzResult {
  iterations: number;
  /** Calls that gave a result, by the function's name; `handles` are the engine's own arrays. */
  computed: Record<string, number>;
  /** Calls that were refused with a typed error. */
  refused: number;
  /** What should not have happened, with the iteration whose seed repeats it. */
  failures: { iteration: number; what: string }[];
}

const throws = [
  { weight: 13, throwAt: fuzzCase },
  { weight: 5, throwAt: fuzzFunction },
  { weight: 1, throwAt: fuzzHandles },
  { weight: 1, throwAt: fuzzOverlap },
].flatMap(({ weight, throwAt }) => new Array<typeof throwAt>(weight).fill(throwAt));

/** Runs `iterations` iterations, from number `first` on. */
export async function fuzz(
  iterations: number,
  seed: number,
  first: number,
  onIteration: (i: number) => void,
): Promise<FuzzResult> {
  const result: FuzzResult = {
    iterations,
    computed: Object.fromEntries(functions.map(([name]) => [name, 0])),
    refused: 0,
    failures: [],
  };
  for (let iteration = first; iteration < first + iterations; iteration++) {
    onIteration(iteration);
    const dice = new Dice(seed, iteration);
    const report: Report = {
      computed: (name) => {
        result.computed[name] = (result.computed[name] ?? 0) + 1;
      },
      refused: () => {
        result.refused++;
      },
      fail: (what) => result.failures.push({ iteration, what }),
    };
    const before = memory().tensors;
    const name = await dice.of(throws)(dice, report);
    await sync().catch(() => undefined); // failures that nobody read
    const left = memory().tensors - before;
    if (left !== 0) report.fail(`${left} tensors are left by ${name}`);
    if (result.failures.length >= 20) break;
  }
  return result;
}
