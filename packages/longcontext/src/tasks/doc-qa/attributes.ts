/** What the documents of the made-up encyclopaedia tell about people, firms and places. */

export type EntityKind = "person" | "firm" | "place";

export interface DocumentAttribute {
  /** As in `What is the NAME of ENTITY?` */
  readonly name: string;
  /** The value is an entity of this kind; undefined: it is drawn from `values` or is a year. */
  readonly refersTo?: EntityKind;
  readonly values?: readonly string[];
  /** `{e}` the entity, `{v}` the value, verbatim. */
  readonly sentences: readonly string[];
}

const list = (words: string): string[] => words.split(",").map((word) => word.trim());
const years = Array.from({ length: 300 }, (_, i) => String(1600 + i));

/** What people do, with a paraphrase that shares no content word with any sentence that states it. */
export const PASTIMES: readonly (readonly [deed: string, paraphrase: string])[] = [
  ["played the bassoon", "can be heard on a deep double-reed woodwind"],
  ["kept bees", "harvests honey from hives"],
  ["collected stamps", "owns albums of postage labels"],
  ["climbed glaciers", "goes up frozen slopes with crampons"],
  ["baked sourdough", "makes loaves with a wild yeast starter"],
  ["raced sailing boats", "takes part in regattas driven by wind"],
  ["repaired clocks", "mends timepieces"],
  ["studied comets", "looks for icy visitors through a telescope"],
  ["bred canaries", "raises yellow songbirds"],
  ["carved chess sets", "whittles kings, rooks and pawns"],
  ["danced the tango", "performs an Argentine ballroom style"],
  ["grew orchids", "tends exotic flowers in a greenhouse"],
  ["photographed owls", "takes pictures of nocturnal hunters with feathers"],
  ["brewed stout", "makes dark beer"],
  ["translated haiku", "renders Japanese three-line poems"],
  ["explored caverns", "descends below ground with a headlamp"],
  ["forged swords", "hammers blades in a smithy"],
  ["juggled torches", "tosses burning sticks for an audience"],
  ["dug for fossils", "unearths petrified skeletons"],
  ["knitted sweaters", "turns wool into warm pullovers"],
  ["rode unicycles", "balances on a single wheel"],
  ["solved ciphers", "breaks secret codes"],
  ["trained falcons", "teaches birds of prey"],
  ["wove baskets", "shapes containers out of willow"],
];

export const DOCUMENT_ATTRIBUTES: Readonly<Record<EntityKind, readonly DocumentAttribute[]>> = {
  person: [
    {
      name: "birthplace",
      refersTo: "place",
      sentences: ["{e} was born in {v}.", "The cradle of {e} stood in {v}.", "It was {v} that gave birth to {e}."],
    },
    {
      name: "birth year",
      values: years,
      sentences: [
        "The year {v} saw the birth of {e}.",
        "In {v} {e} came into the world.",
        "Church books give {v} for the baptism of {e}.",
      ],
    },
    {
      name: "profession",
      values: list(
        "surveyor, notary, bookbinder, bridge engineer, apothecary, opera singer, harbour pilot, locksmith, botanist, printer, veterinarian, mathematician",
      ),
      sentences: [
        "By trade {e} was a sworn {v}.",
        "{e} earned a living as the town's {v}.",
        "As a young {v} {e} became known.",
      ],
    },
    {
      name: "pastime",
      values: PASTIMES.map(([deed]) => deed),
      sentences: ["In spare hours {e} {v}.", "On quiet evenings {e} {v}.", "For pleasure {e} {v}."],
    },
  ],
  firm: [
    {
      name: "founder",
      refersTo: "person",
      sentences: [
        "The firm {e} was founded by {v}.",
        "It was {v} who started {e}.",
        "{v} signed the first charter of {e}.",
      ],
    },
    {
      name: "seat",
      refersTo: "place",
      sentences: [
        "{e} has its seat in {v}.",
        "From {v} the board of {e} runs the business.",
        "The offices of {e} are in {v}.",
      ],
    },
    {
      name: "founding year",
      values: years,
      sentences: [
        "{e} opened its doors in {v}.",
        "The ledger of {e} begins in {v}.",
        "Since {v} there has been a firm {e}.",
      ],
    },
    {
      name: "main product",
      values: list(
        "brass buttons, sewing machines, fountain pens, roof tiles, ship lanterns, chocolate boxes, surgical scissors, church organs, paper lamps, garden rollers, pocket compasses, bicycle saddles",
      ),
      sentences: ["{e} became rich with {v}.", "Most of what {e} sells are {v}.", "The best {v} come from {e}."],
    },
  ],
  place: [
    {
      name: "mayor",
      refersTo: "person",
      sentences: [
        "The mayor of {e} is {v}.",
        "{v} holds the office of mayor in {e}.",
        "Voters of {e} chose {v} as mayor.",
      ],
    },
    {
      name: "patron dish",
      values: list(
        "eel pie, saffron dumplings, pickled quince, barley pancakes, smoked plums, hazelnut soup, beet noodles, mint sausages, rhubarb loaf, juniper stew",
      ),
      sentences: [
        "Guests of {e} are offered {v}.",
        "Every kitchen of {e} makes {v}.",
        "On feast days {e} smells of {v}.",
      ],
    },
    {
      name: "charter year",
      values: years,
      sentences: [
        "{e} received its charter in {v}.",
        "A seal of {v} made {e} a town.",
        "Since {v} {e} may hold a market.",
      ],
    },
    {
      name: "landmark",
      values: list(
        "a leaning lighthouse, a covered bridge, a blue cathedral, a windmill of stone, a floating theatre, a sunken fort, an iron obelisk, a hanging garden, a glass arcade, a spiral tower",
      ),
      sentences: ["Travellers see {v} above {e}.", "The pride of {e} is {v}.", "{e} shows {v} on its coat of arms."],
    },
  ],
};
