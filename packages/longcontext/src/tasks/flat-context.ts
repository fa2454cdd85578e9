/** Context on lines: relevant items placed among units of filler. */
import type { TextUnits } from "../tokens/budget.js";
import { type Selection, selectedUnits, unitAt } from "../tokens/budget.js";
import { interleave } from "../tokens/placement.js";
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

  text(selection: Selection): string {
    const parts: string[] = [];
    this.#walk(
      selection,
      (j) => void parts.push(this.items[j]!),
      (i) => void parts.push(this.#units.text(i)!),
    );
    return parts.join(this.#separator);
  }

  /** Per item the tokens before it over the tokens of the context, in percent; units and items counted alone. */
  depths(selection: Selection, tokenizer: Tokenizer): number[] {
    const before: number[] = [];
    let tokens = 0;
    this.#walk(
      selection,
      (j) => {
        before.push(tokens);
        tokens += tokenizer.count(this.items[j]! + this.#separator);
      },
      (i) => {
        tokens += this.#units.tokensOf(i)!;
      },
    );
    return before.map((count) => (100 * count) / tokens);
  }

  #walk(selection: Selection, item: (j: number) => void, unit: (i: number) => void): void {
    interleave(this.#positions, selectedUnits(selection), item, (k) => unit(unitAt(selection, k)));
  }
}
