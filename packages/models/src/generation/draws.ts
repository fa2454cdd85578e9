import { randomUniform } from "@llmeff/tensor";

/** The random streams of a sequence; the index of a draw is its position in its stream. */
const streams = {
  /** Of the next token. */
  token: 0x67656e,
  /** Of a drafted token. */
  draft: 0x647266,
  /** Of whether a drafted token is kept. */
  keep: 0x6b6570,
};

/** Numbers in [0, 1) by their index, made as far as they are asked for. */
export class Draws {
  #values = new Float64Array(0);

  constructor(
    private readonly seed: number,
    private readonly purpose: keyof typeof streams,
  ) {}

  /** Makes sure of the numbers before `end`. The generator is counter-based, so that a longer array begins with the shorter one. */
  async reach(end: number): Promise<void> {
    if (end <= this.#values.length) return;
    const length = Math.max(end, 2 * this.#values.length, 64);
    const key = { seed: this.seed, stream: streams[this.purpose] };
    using made = randomUniform(key, [length], { dtype: "float64", device: "cpu" });
    this.#values = (await made.data()) as Float64Array<ArrayBuffer>;
  }

  /** 0 where none was asked for: at temperature 0 any number draws the same token. */
  at(index: number): number {
    return this.#values[index] ?? 0;
  }
}
