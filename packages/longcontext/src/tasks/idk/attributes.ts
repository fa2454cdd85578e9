/** What stories tell about made-up beings and things: attributes with values, and how a sentence states them. */

export interface Attribute {
  /** As in `What is the NAME of ENTITY?` */
  readonly name: string;
  readonly values: readonly string[];
  /** `{e}` the entity, `{v}` the value, verbatim. */
  readonly sentences: readonly string[];
}

const list = (words: string): string[] => words.split(",").map((word) => word.trim());

const WEEKDAYS = list("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday");
const COLOURS = list(
  "crimson, turquoise, amber, violet, ivory, scarlet, emerald, silver, indigo, maroon, beige, copper",
);
const MATERIALS = list(
  "oak, granite, bronze, marble, cedar, slate, iron, bamboo, sandstone, pewter, walnut, limestone",
);
const FOODS = list(
  "barley soup, smoked trout, plum cake, goat cheese, lentil stew, rye bread, fig jam, roast chestnuts, pea pancakes, honey buns",
);
const INSTRUMENTS = list("bassoon, harp, mandolin, oboe, accordion, cello, tambourine, zither, trombone, lute");

export const ATTRIBUTES = {
  colour: {
    name: "colour",
    values: COLOURS,
    sentences: [
      "Everyone knew the colour of {e}: {v}.",
      "From far away {e} looked {v}, for that was its colour.",
      "The painter mixed {v}, the colour of {e}.",
    ],
  },
  age: {
    name: "age",
    values: list(
      "eleven years, fourteen years, nineteen years, twenty-three years, thirty-one years, forty-six years, fifty-two years, sixty-eight years, seventy-five years, ninety years",
    ),
    sentences: [
      "At the time {e} had reached an age of {v}.",
      "The register gave the age of {e} as {v}.",
      "With an age of {v}, {e} had seen much.",
    ],
  },
  weekday: {
    name: "weekday of arrival",
    values: WEEKDAYS,
    sentences: [
      "It was on a {v} that {e} arrived.",
      "The diary says that {e} arrived on {v}.",
      "Nobody forgot the {v} when {e} arrived.",
    ],
  },
  price: {
    name: "price",
    values: list(
      "17 crowns, 24 crowns, 39 crowns, 58 crowns, 71 crowns, 86 crowns, 112 crowns, 140 crowns, 265 crowns, 430 crowns",
    ),
    sentences: [
      "At the fair {e} went for a price of {v}.",
      "The price of {e} was {v}, not a coin more.",
      "Somebody offered {v} as the price of {e}.",
    ],
  },
  material: {
    name: "door material",
    values: MATERIALS,
    sentences: [
      "The door of {e} was made of {v}.",
      "Visitors of {e} knock on a door of {v}.",
      "A heavy {v} door belonged to {e}.",
    ],
  },
  food: {
    name: "favourite food",
    values: FOODS,
    sentences: [
      "Nothing pleased {e} more than {v}, a favourite food.",
      "On feast days {e} asked for {v}, the favourite food.",
      "The cook made {v}, which {e} liked best of all food.",
    ],
  },
  instrument: {
    name: "instrument",
    values: INSTRUMENTS,
    sentences: [
      "In the evenings one heard the {v}, the instrument of {e}.",
      "The instrument that belonged to {e}, the {v}, was of old make.",
      "Its {v}, a rare instrument, was the pride of {e}.",
    ],
  },
  neighbour: {
    name: "neighbour",
    values: list(
      "the blacksmith, the ferryman, the apothecary, the glassblower, the beekeeper, the cooper, the midwife, the schoolmaster, the clockmaker, the falconer",
    ),
    sentences: [
      "Next door to {e} lived {v}, a good neighbour.",
      "The neighbour of {e} was {v}.",
      "Over the wall {e} talked with {v}, the neighbour.",
    ],
  },
} as const satisfies Record<string, Attribute>;

export type AttributeKey = keyof typeof ATTRIBUTES;

export const ATTRIBUTE_KEYS = Object.keys(ATTRIBUTES) as AttributeKey[];

/** What an entity may be, so that stories differ; every kind can have every attribute. */
export const ENTITY_KINDS = list(
  "inn, dog, ship, travelling circus, parrot, village choir, watchmaker, mill, school, museum, tortoise, bakery",
);
