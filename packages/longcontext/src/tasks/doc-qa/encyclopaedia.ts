/** Documents about made-up people, firms and places, 60 to 150 words each. */
import type { Random } from "@llmeff/data";
import { chance, pick } from "../../random.js";
import { NameStream } from "../../scribe/names.js";
import { proseLine } from "../../scribe/prose.js";
import type { Fact } from "../idk/story.js";
import { DOCUMENT_ATTRIBUTES, type EntityKind } from "./attributes.js";

export interface Entity {
  kind: EntityKind;
  name: string;
  /** Values by attribute name. */
  values: ReadonlyMap<string, string>;
}

const LEAST_WORDS = 60;
const MOST_WORDS = 150;
const FIRM_FORMS = ["Works", "Company", "Brothers", "Trading House", "and Sons", "Foundry"] as const;

const wordsOf = (text: string): number => text.split(" ").length;

/** Names and values of entities, none of them twice. */
export class World {
  readonly #random: Random;
  readonly #given: NameStream;
  readonly #family: NameStream;
  readonly #firms: NameStream;
  readonly #places: NameStream;

  constructor(random: Random) {
    this.#random = random;
    this.#given = new NameStream(random);
    this.#family = new NameStream(random);
    this.#firms = new NameStream(random, "firm");
    this.#places = new NameStream(random, "place");
  }

  newName(kind: EntityKind): string {
    if (kind === "person") return `${this.#given.next()} ${this.#family.next()}`;
    return kind === "firm" ? `${this.#firms.next()} ${pick(this.#random, FIRM_FORMS)}` : this.#places.next();
  }

  /**
   * An entity with a value for every attribute; those that refer to entities take new names unless given.
   *
   * @param given - values by attribute name
   * @param barred - a value that no attribute takes
   */
  newEntity(kind: EntityKind, name: string, given: Readonly<Record<string, string>> = {}, barred?: string): Entity {
    const values = DOCUMENT_ATTRIBUTES[kind].map((attribute): [string, string] => {
      const { name: field, refersTo, values = [] } = attribute;
      if (given[field] !== undefined) return [field, given[field]];
      if (refersTo !== undefined) return [field, this.newName(refersTo)];
      return [field, pick(this.#random, barred === undefined ? values : values.filter((value) => value !== barred))];
    });
    return { kind, name, values: new Map(values) };
  }
}

export function factsOf({ name, values }: Entity): Fact[] {
  return [...values].map(([attribute, value]) => [name, attribute, value]);
}

/** Heading and text: a sentence for each attribute among sentences that tell nothing. */
export function writeDocument(random: Random, { kind, name, values }: Entity): string {
  const sentences = DOCUMENT_ATTRIBUTES[kind].map((attribute) =>
    pick(random, attribute.sentences).replace("{e}", name).replace("{v}", values.get(attribute.name)!),
  );
  const wanted = random.integer(LEAST_WORDS, MOST_WORDS + 1);
  let words = sentences.reduce((sum, sentence) => sum + wordsOf(sentence), 0);
  while (words < wanted) {
    // A line may have several sentences; only whole ones that keep below the limit are taken.
    for (const sentence of proseLine(random).split(/(?<=[.?!]) /)) {
      const more = wordsOf(sentence);
      if (words < wanted && words + more <= MOST_WORDS) {
        sentences.push(sentence);
        words += more;
      } else if (words + more > MOST_WORDS && words >= LEAST_WORDS) {
        return `${name}\n${random.shuffle(sentences).join(" ")}`;
      }
    }
  }
  return `${name}\n${random.shuffle(sentences).join(" ")}`;
}

/**
 * Documents that do not matter, one after another: clusters of a person, a firm of which that person may be the founder, and a place that
 * it may govern, so that references lead somewhere as those of the relevant documents do.
 */
export function* fillerDocuments(random: Random, world: World, barred: string | undefined): Generator<string> {
  for (;;) {
    const person = world.newName("person");
    const place = world.newName("place");
    const entities = [
      world.newEntity("person", person, chance(random, 0.5) ? { birthplace: place } : {}, barred),
      world.newEntity("firm", world.newName("firm"), { founder: person }, barred),
      world.newEntity("place", place, { mayor: person }, barred),
    ];
    for (const entity of random.shuffle(entities)) yield writeDocument(random, entity);
  }
}
