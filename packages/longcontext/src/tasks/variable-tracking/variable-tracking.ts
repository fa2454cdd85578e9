/** Variable tracking (RULER's `vt`, arXiv:2404.06654 §3.2), with several chains and later re-assignments. */
import type { Random } from "@llmeff/data";
import { pick, streamFor } from "../../random.js";
import { requireInteger } from "../../require-integer.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { Permutation } from "../../scribe/permutation.js";
import { type Placement, positionsFor } from "../../tokens/placement.js";
import { utf8Bytes } from "../../tokens/tokenizer.js";
import { FlatContext } from "../flat-context.js";
import { type Haystack, haystackName, haystackUnits } from "../haystack.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";
import { holdersOf } from "./assignments.js";

export interface VariableTrackingParams {
  /** Default 2; with one chain the task is to find all names. */
  chains?: number;
  /** Copies after the first assignment of each chain; default 4. */
  hops?: number;
  /** Later assignments to variables that are set already; default 2. */
  reassign?: number;
  /** Default `noise`. */
  haystack?: Haystack;
  placement?: Placement;
}

export interface VariableTrackingMeta extends SampleMeta {
  /** The value asked for. */
  value: string;
  chains: number;
  hops: number;
  reassign: number;
  haystack: string;
  /** Depth of each statement in percent. */
  depths: number[];
}

const RESERVE = 64;
const MOST = 1000;
const LETTERS = 26;
const NAME_LENGTH = 5;
const LEAST_VALUE = 10_000;
const VALUES = 90_000;
const INTRODUCTION =
  "The text below sets variables, among other lines. `VAR A = 123` gives A the value 123; `VAR A = VAR B` gives A the value that B has at that line. Later lines replace earlier values.";

function variableName(index: number): string {
  let name = "";
  for (let rest = index, k = 0; k < NAME_LENGTH; k++, rest = Math.floor(rest / LETTERS)) {
    name += String.fromCharCode(65 + (rest % LETTERS));
  }
  return name;
}

/** Statements of all chains, mixed, each chain in its order; then the re-assignments. */
function drawStatements(random: Random, chains: number, hops: number, reassign: number): string[] {
  const names = new Permutation(LETTERS ** NAME_LENGTH, random);
  const values = new Permutation(VALUES, random);
  const name = (chain: number, hop: number): string => variableName(names.at(chain * (hops + 1) + hop));
  const turns = random.shuffle(Array.from({ length: chains * (hops + 1) }, (_, i) => i % chains));
  const state = new Map<string, string>();
  const next = new Array<number>(chains).fill(0);
  const statements = turns.map((chain) => {
    const hop = next[chain]!++;
    const variable = name(chain, hop);
    if (hop === 0) {
      const value = String(LEAST_VALUE + values.at(chain));
      state.set(variable, value);
      return `VAR ${variable} = ${value}`;
    }
    // Any earlier variable of the chain holds its value, so a chain need not be a line.
    const source = name(chain, random.integer(0, hop));
    state.set(variable, state.get(source)!);
    return `VAR ${variable} = VAR ${source}`;
  });
  for (let k = 0; k < reassign; k++) {
    const variables = [...state.keys()];
    const variable = pick(random, variables);
    const others = variables.filter((other) => state.get(other) !== state.get(variable));
    const source = others.length > 0 && random.integer(0, 4) > 0 ? pick(random, others) : undefined;
    const value = source === undefined ? String(LEAST_VALUE + values.at(chains + k)) : state.get(source)!;
    state.set(variable, value);
    statements.push(`VAR ${variable} = ${source === undefined ? value : `VAR ${source}`}`);
  }
  return statements;
}

/** Assignments among filler; asked are the variables that hold a value at the end. Complexity is the number of assignments. */
export function variableTracking(
  options: SampleOptions,
  params: VariableTrackingParams = {},
): Sample<string[], VariableTrackingMeta> {
  const { seed, index, tokenizer = utf8Bytes } = options;
  const { chains = 2, hops = 4, reassign = 2, haystack = "noise", placement = "uniform" } = params;
  requireInteger("variable_tracking", "chains", chains, 1, MOST);
  requireInteger("variable_tracking", "hops", hops, 0, MOST);
  requireInteger("variable_tracking", "reassign", reassign, 0, MOST);
  const shape = `${chains}/${hops}/${reassign}`;
  const stream = (purpose: string): Random => streamFor(seed, "variable_tracking", index, purpose);
  const random = stream(`statements/${shape}`);
  const statements = drawStatements(random, chains, hops, reassign);
  const value = pick(random, heldValues(statements));
  const positions = positionsFor("variable_tracking", placement, statements.length, stream(`placement/${shape}`));
  const units = haystackUnits("variable_tracking", haystack, stream("filler"), tokenizer);
  const context = new FlatContext(statements, positions, units);
  return assembleSample<string[], Omit<VariableTrackingMeta, keyof SampleMeta>>({
    task: "variable_tracking",
    options,
    params: { chains, hops, reassign, haystack: haystackName(haystack), placement },
    complexity: statements.length,
    units,
    reserve: RESERVE,
    target: holdersOf(statements, value),
    render: (selection) => [
      {
        role: "user",
        content: context.pieces(
          `${INTRODUCTION}\n\n`,
          selection,
          `\n\nQuestion: Which variables hold the value ${value} after the last line? Give their names alone.\nAnswer:`,
        ),
      },
    ],
    meta: ({ selection }) => ({
      value,
      chains,
      hops,
      reassign,
      haystack: haystackName(haystack),
      depths: context.depths(selection, tokenizer),
    }),
  }) as Sample<string[], VariableTrackingMeta>;
}

/** Values written down that some variable holds at the end. */
function heldValues(statements: readonly string[]): string[] {
  const written = statements.flatMap((statement) => /= (\d+)$/.exec(statement)?.[1] ?? []);
  return written.filter((value) => holdersOf(statements, value).length > 0);
}
