/** Context on lines: relevant items placed among units of filler. */
import type { TextUnits } from "../tokens/budget.js";
import { type Selection, selectedUnits, unitAt } from "../tokens/budget.js";
import { interleaved } from "../tokens/placement.js";
import type { Tokenizer } from "../tokens/tokenizer.js";

export class FlatContext {
  readonly items: readonly string[];
  readonly #units: TextUnits;
  readonly #positions: readonly number[];
  readonly #separator: string;

  /** @param positions - of the items, ascending (`positionsFor`) */
  constructor(items: readonly string[], positions: readonly number[], units: TextUnits, separator = "\n") {
    this.items = items;
    this.#units = units;
    this.#positions = positions;
    this.#separator = separator;
  }

  /** The context in pieces, between what stands before and after it. */
  *pieces(before: string, selection: Selection, after: string): Generator<string> {
    yield before;
    let separator = "";
    for (const [kind, k] of interleaved(this.#positions, selectedUnits(selection))) {
      yield separator + (kind === "item" ? this.items[k]! : this.#units.text(unitAt(selection, k))!);
      separator = this.#separator;
    }
    yield after;
  }

  /** Per item the tokens before it over the tokens of the context, in percent; units and items counted alone. */
  depths(selection: Selection, tokenizer: Tokenizer): number[] {
    const before: number[] = [];
    let tokens = 0;
    for (const [kind, k] of interleaved(this.#positions, selectedUnits(selection))) {
      if (kind === "item") before.push(tokens);
      tokens +=
        kind === "item"
          ? tokenizer.count(this.items[k]! + this.#separator)
          : this.#units.tokensOf(unitAt(selection, k))!;
    }
    return before.map((count) => (100 * count) / tokens);
  }
}
