/** Latent List (Michelangelo, arXiv:2409.12640 §2.1): what a long Python program leaves in a list. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { pick, streamFor } from "../../random.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { type Selection, selectedUnits, type UnitStream, unitAt } from "../../tokens/budget.js";
import { interleave, type Placement, positionsFor } from "../../tokens/placement.js";
import { type Tokenizer, utf8Bytes } from "../../tokens/tokenizer.js";
import { UnitCounter } from "../../tokens/unit-counter.js";
import { assembleSample, requireInteger, type SampleOptions } from "../sample-options.js";
import { type Core, drawCore, INITIAL, type Relevance } from "./core.js";
import { drawRecipe, type Recipe, writeRecipe, writeStatement } from "./filler.js";
import { applyStatement, VIEWS, type View } from "./program.js";

export interface LatentListParams {
  /** Relevant operations; default: 1, 5 or 20, drawn for each sample. */
  complexity?: number;
  /** `state` (default): deleting any operation changes the final list; `view`: it changes what the view shows. */
  relevance?: Relevance;
  placement?: Placement;
  /** Views to draw from; default all five. */
  views?: readonly View[];
}

export interface LatentListMeta extends SampleMeta {
  view: View;
  /** Initial assignment, operations and view, as lines without `>>> `. */
  core: string[];
  relevance: Relevance;
  placement: Placement;
  /** Characters of the program before each operation, in percent of all. */
  depths: number[];
}

const COMPLEXITIES = [1, 5, 20] as const;
const MOST_OPERATIONS = 200;
/** A full print at complexity 20 is 26 numbers of up to seven bytes. */
const RESERVE = 256;
const EXAMPLES = 2;
const PROMPT = ">>> ";
const INTRODUCTION =
  "Act as a Python interpreter. Each line after `>>>` is one statement. After the last one, give only what Python would show.";

/**
 * A program whose `complexity` relevant operations stand among blocks that leave the list as it was. The target is what the last line shows.
 *
 * @example
 * const sample = latentList({ seed: 1, index: 0, maxTokens: 16384 }, { complexity: 5 });
 */
export function latentList(options: SampleOptions, params: LatentListParams = {}): Sample<string, LatentListMeta> {
  const { seed, index, tokenizer = utf8Bytes } = options;
  const { relevance = "state", placement = "uniform", views = VIEWS } = params;
  const stream = (purpose: string): Random => streamFor(seed, "latent_list", index, purpose);
  const complexity = params.complexity ?? pick(stream("complexity"), COMPLEXITIES);
  requireInteger("latent_list", "complexity", complexity, 1, MOST_OPERATIONS);
  if (views.length === 0 || views.some((view) => !VIEWS.includes(view))) {
    throw new OptionError(
      `[latent_list] views must be some of ${VIEWS.join(", ")}; received ${JSON.stringify(views)}.`,
    );
  }
  const core = drawCore(stream(`core/${complexity}/${relevance}/${views.join()}`), complexity, relevance, views);
  const positions = positionsFor("latent_list", placement, complexity, stream(`placement/${complexity}`));
  const units = new RecipeUnits(stream("filler"), tokenizer);
  const program = new Program(core, positions, units);
  const head = `${INTRODUCTION}\n\n${writeExamples(stream("examples"), core)}`;
  return assembleSample<string, Omit<LatentListMeta, keyof SampleMeta>>({
    task: "latent_list",
    options,
    params: { complexity, relevance, placement, views },
    complexity,
    units,
    reserve: RESERVE,
    target: core.output,
    render: (selection) => [
      { role: "user", content: `${head}${PROMPT}${program.lines(selection).join(`\n${PROMPT}`)}\nOutput:` },
    ],
    meta: ({ selection }) => ({
      view: core.view.view,
      core: [...core.statements, core.view].map(writeStatement),
      relevance,
      placement,
      depths: program.depths(selection),
    }),
  }) as Sample<string, LatentListMeta>;
}

/** Blocks drawn one after another; each counted as it would read on the initial list. */
class RecipeUnits implements UnitStream {
  readonly #random: Random;
  readonly #counter: UnitCounter;
  readonly #recipes: Recipe[] = [];
  readonly #tokens: number[] = [];

  constructor(random: Random, tokenizer: Tokenizer) {
    this.#random = random;
    this.#counter = new UnitCounter(tokenizer);
  }

  recipe(i: number): Recipe {
    while (this.#recipes.length <= i) {
      const recipe = drawRecipe(this.#random);
      const lines: string[] = [];
      writeRecipe(recipe, [...INITIAL], lines);
      this.#recipes.push(recipe);
      this.#tokens.push(this.#counter.count(`${PROMPT}${lines.join(`\n${PROMPT}`)}\n`));
    }
    return this.#recipes[i]!;
  }

  tokensOf(i: number): number {
    this.recipe(i);
    return this.#tokens[i]!;
  }
}

class Program {
  readonly #core: Core;
  readonly #positions: readonly number[];
  readonly #units: RecipeUnits;

  constructor(core: Core, positions: readonly number[], units: RecipeUnits) {
    this.#core = core;
    this.#positions = positions;
    this.#units = units;
  }

  lines(selection: Selection): string[] {
    return this.#write(selection).lines;
  }

  depths(selection: Selection): number[] {
    const { lines, operationLines } = this.#write(selection);
    const before = [0];
    for (const line of lines) before.push(before.at(-1)! + PROMPT.length + line.length + 1);
    return operationLines.map((line) => (100 * before[line]!) / before.at(-1)!);
  }

  #write(selection: Selection): { lines: string[]; operationLines: number[] } {
    const [initial, ...operations] = this.#core.statements;
    const lines = [writeStatement(initial!)];
    const operationLines: number[] = [];
    const list = [...INITIAL];
    interleave(
      this.#positions,
      selectedUnits(selection),
      (j) => {
        operationLines.push(lines.length);
        lines.push(writeStatement(operations[j]!));
        applyStatement(list, operations[j]!);
      },
      (k) => writeRecipe(this.#units.recipe(unitAt(selection, k)), list, lines),
    );
    lines.push(writeStatement(this.#core.view));
    return { lines, operationLines };
  }
}

/** Two short solved programs with views of other arguments than the tested one. */
function writeExamples(random: Random, tested: Core): string {
  const view = writeStatement(tested.view);
  let text = "";
  for (let shown = 0; shown < EXAMPLES; ) {
    const example = drawCore(random, 2, "state", VIEWS);
    // `len(a)` has no arguments, so it may show up again.
    if (writeStatement(example.view) === view && tested.view.view !== "len") continue;
    const lines = [...example.statements, example.view].map((statement) => PROMPT + writeStatement(statement));
    text += `${lines.join("\n")}\nOutput: ${example.output}\n\n`;
    shown++;
  }
  return text;
}
