import { randomUniform } from "@llmeff/tensor";

/** The random stream of token draws; the index of the draw is its position in the stream. */
const drawStream = 0x67656e; // "gen"

/** Numbers in [0, 1) by their index, made as far as they are asked for. */
export class Draws {
  #values = new Float64Array(0);

  constructor(
    private readonly seed: number,
    private readonly stream = drawStream,
  ) {}

  /** Makes sure of the numbers before `end`. The generator is counter-based, so that a longer array begins with the shorter one. */
  async reach(end: number): Promise<void> {
    if (end <= this.#values.length) return;
    const length = Math.max(end, 2 * this.#values.length, 64);
    using made = randomUniform({ seed: this.seed, stream: this.stream }, [length], { dtype: "float64", device: "cpu" });
    this.#values = (await made.data()) as Float64Array<ArrayBuffer>;
  }

  at(index: number): number {
    return this.#values[index]!;
  }
}
