/** Short stories that state some attributes of two made-up entities. */
import type { Random } from "@llmeff/data";
import { pick, pickSome } from "../../random.js";
import { capitalise, withArticle } from "../../scribe/frame.js";
import { ATTRIBUTE_KEYS, ATTRIBUTES, type AttributeKey, ENTITY_KINDS } from "./attributes.js";

/** `[entity, attribute, value]`, as stated. */
export type Fact = [entity: string, attribute: string, value: string];

export interface Story {
  text: string;
  facts: Fact[];
}

export interface Cast {
  /** Whom a question is about. */
  main: string;
  other: string;
}

/** For each entity the attributes told, with their values. */
export interface Plot {
  main: ReadonlyMap<AttributeKey, string>;
  other: ReadonlyMap<AttributeKey, string>;
}

const ATTRIBUTES_TOLD = 4;

/**
 * A plot in which `asked` is told of the main entity only if `answerable`, and of the other always: its value lures where there is no answer,
 * and stands among the wrong choices where there is one. No two entities share a value.
 */
export function drawPlot(random: Random, asked: AttributeKey, answerable: boolean): Plot {
  const rest = pickSome(
    random,
    ATTRIBUTE_KEYS.filter((key) => key !== asked),
    2 * ATTRIBUTES_TOLD - 1,
  );
  const others = rest.slice(0, ATTRIBUTES_TOLD - 1);
  const mains = pickSome(random, rest, answerable ? ATTRIBUTES_TOLD - 1 : ATTRIBUTES_TOLD);
  const other = new Map(
    [asked, ...others].map((key) => [key, pick(random, ATTRIBUTES[key].values as readonly string[])]),
  );
  const main = new Map(
    [...(answerable ? [asked] : []), ...mains].map((key) => {
      const values = (ATTRIBUTES[key].values as readonly string[]).filter((value) => value !== other.get(key));
      return [key, pick(random, values)];
    }),
  );
  return { main, other };
}

/** The story in sentences of random order, after one that introduces both. */
export function writeStory(random: Random, cast: Cast, plot: Plot): Story {
  const [first, second] = pickSome(random, ENTITY_KINDS, 2);
  const told = [
    ...[...plot.main].map(([key, value]) => ({ entity: cast.main, key, value })),
    ...[...plot.other].map(([key, value]) => ({ entity: cast.other, key, value })),
  ];
  const sentences = random.shuffle(told).map(({ entity, key, value }) =>
    pick(random, ATTRIBUTES[key].sentences as readonly string[])
      .replace("{e}", entity)
      .replace("{v}", value),
  );
  const introduction = `${capitalise(withArticle(first!))} called ${cast.main} and ${withArticle(second!)} called ${cast.other} were known in the whole valley.`;
  return {
    text: [introduction, ...sentences].join(" "),
    facts: told.map(({ entity, key, value }) => [entity, ATTRIBUTES[key].name, value]),
  };
}
