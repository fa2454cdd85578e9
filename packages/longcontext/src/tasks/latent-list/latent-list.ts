/** Latent List (Michelangelo, arXiv:2409.12640 §2.1): what a long Python program leaves in a list. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { pick, streamFor } from "../../random.js";
import { requireInteger } from "../../require-integer.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { type Selection, selectedUnits, type UnitStream } from "../../tokens/budget.js";
import { interleaved, type Placement, positionsFor } from "../../tokens/placement.js";
import { type Tokenizer, utf8Bytes } from "../../tokens/tokenizer.js";
import { UnitCounter } from "../../tokens/unit-counter.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";
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
  const units = new RecipeUnits(() => stream("filler"), tokenizer);
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
    render: (selection) => [{ role: "user", content: program.pieces(head, selection) }],
    meta: ({ selection }) => ({
      view: core.view.view,
      core: [...core.statements, core.view].map(writeStatement),
      relevance,
      placement,
      depths: program.depths(selection),
    }),
  }) as Sample<string, LatentListMeta>;
}

/**
 * Blocks drawn one after another, each counted as it would read on the initial list. They are drawn anew for every text rather than kept:
 * ten million tokens have a million of them.
 */
class RecipeUnits implements UnitStream {
  readonly #stream: () => Random;
  readonly #counted: Random;
  readonly #counter: UnitCounter;
  readonly #tokens: number[] = [];

  /** @param stream - makes the stream of the blocks from its beginning */
  constructor(stream: () => Random, tokenizer: Tokenizer) {
    this.#stream = stream;
    this.#counted = stream();
    this.#counter = new UnitCounter(tokenizer);
  }

  tokensOf(i: number): number {
    while (this.#tokens.length <= i) {
      const lines: string[] = [];
      writeRecipe(drawRecipe(this.#counted), [...INITIAL], lines);
      this.#tokens.push(this.#counter.count(linesOf(lines)));
    }
    return this.#tokens[i]!;
  }

  *recipes({ count, tail }: Selection): Generator<Recipe> {
    const random = this.#stream();
    const last = tail.at(-1) ?? count - 1;
    for (let i = 0; i <= last; i++) {
      const recipe = drawRecipe(random);
      if (i < count || tail.includes(i)) yield recipe;
    }
  }
}

const linesOf = (lines: readonly string[]): string => `${PROMPT}${lines.join(`\n${PROMPT}`)}\n`;

class Program {
  readonly #core: Core;
  readonly #positions: readonly number[];
  readonly #units: RecipeUnits;

  constructor(core: Core, positions: readonly number[], units: RecipeUnits) {
    this.#core = core;
    this.#positions = positions;
    this.#units = units;
  }

  /** The prompt in pieces: examples, program, `Output:`. */
  *pieces(head: string, selection: Selection): Generator<string> {
    yield head;
    for (const { lines } of this.#blocks(selection)) yield linesOf(lines);
    yield "Output:";
  }

  /** Characters before each operation, in percent of the program's. */
  depths(selection: Selection): number[] {
    const before: number[] = [];
    let characters = 0;
    for (const { lines, isOperation } of this.#blocks(selection)) {
      if (isOperation) before.push(characters);
      characters += linesOf(lines).length;
    }
    return before.map((count) => (100 * count) / characters);
  }

  *#blocks(selection: Selection): Generator<{ lines: string[]; isOperation: boolean }> {
    const [initial, ...operations] = this.#core.statements;
    const recipes = this.#units.recipes(selection);
    const list = [...INITIAL];
    yield { lines: [writeStatement(initial!)], isOperation: false };
    for (const [kind, k] of interleaved(this.#positions, selectedUnits(selection))) {
      const lines: string[] = [];
      if (kind === "item") {
        lines.push(writeStatement(operations[k]!));
        applyStatement(list, operations[k]!);
      } else writeRecipe(recipes.next().value as Recipe, list, lines);
      yield { lines, isOperation: kind === "item" };
    }
    yield { lines: [writeStatement(this.#core.view)], isOperation: false };
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
