/** The sequences that documents are cut into, one after the other, each with the place from which it can be had again. */
import type { JsonObject } from "./batch.js";
import type { Example } from "./denoising.js";
import type { DocumentSource, DrawnDocument } from "./documents.js";
import type { ExampleMaker } from "./examples.js";
import type { Seed } from "./philox.js";
import { Random } from "./random.js";

/** A place in the stream: some sequences into a document. */
export interface SequencePlace {
  /** The source's state before the document. */
  source: JsonObject;
  /** Sequences of it before this place. */
  taken: number;
}

export interface PlacedSequence {
  example: Example;
  place: SequencePlace;
}

/** An endless stream. All random choices for a document are keyed by (seed, source, epoch, its number), so that it gives the same sequences again. */
export class SequenceStream {
  readonly #source: DocumentSource;
  readonly #maker: ExampleMaker;
  readonly #seed: Seed;
  #open: { before: JsonObject; examples: Generator<Example>; taken: number } | undefined;
  /** Sequences of the next document that are passed over. */
  #skip = 0;

  constructor(source: DocumentSource, maker: ExampleMaker, seed: Seed) {
    this.#source = source;
    this.#maker = maker;
    this.#seed = seed;
  }

  async next(): Promise<PlacedSequence> {
    for (;;) {
      this.#open ??= await this.#next();
      const open = this.#open;
      const { value: example } = open.examples.next();
      if (example === undefined) {
        this.#open = undefined;
        continue;
      }
      const place = { source: open.before, taken: open.taken };
      open.taken += 1;
      return { example, place };
    }
  }

  /** The place of the next sequence. */
  place(): SequencePlace {
    return this.#open === undefined
      ? { source: this.#source.state(), taken: this.#skip }
      : { source: this.#open.before, taken: this.#open.taken };
  }

  /** @throws {FormatError} if the source refuses its state; the stream stays where it is */
  goTo({ source, taken }: SequencePlace): void {
    this.#source.restore(source);
    this.#open = undefined;
    this.#skip = taken;
  }

  async #next() {
    const before = this.#source.state();
    const drawn = await this.#source.next();
    const examples = this.#maker.examples(drawn.tokens, this.#random(drawn));
    for (let i = 0; i < this.#skip; i++) examples.next();
    const open = { before, examples, taken: this.#skip };
    this.#skip = 0;
    return open;
  }

  #random({ source, epoch, index }: DrawnDocument): Random {
    return new Random(this.#seed, `objectives/${source}/${epoch}`, index);
  }
}
