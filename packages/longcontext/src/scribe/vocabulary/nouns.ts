/** Nouns: concrete, countable, and regular in the plural except for those listed. Written for this package. */

export interface Noun {
  readonly sg: string;
  readonly pl: string;
}

const words = `
acorn actor album alley almond ambulance anchor angel ankle ant antenna anvil apple apron archer arrow artist atlas attic awning axe
baker balcony ball balloon bandit banker banner barber barge barrel basin basket bat battery beacon bead beaver bed bee beetle bell belt
bench berry bicycle bird blanket boat bolt book boot bottle boulder bowl box bracelet branch brick bridge brook broom brush bucket
builder bulb bullet butcher butterfly button cabin cabinet cactus cage cake calendar camel camera canal candle canoe canvas cape captain
card carpenter carpet carrot cart castle cat cave cellar chain chair chapel chariot cherry chest chimney chisel church circle clerk cliff
clock cloud clown coat coin collar column comb comet compass cook coral cork cottage cousin cow crab cradle crane crate crow crown cup
curtain cushion dancer dentist desk diary diver doctor dog doll dolphin donkey door dove dragon drawer driver drum duck eagle editor eel
egg elbow elephant elm engine envelope falcon farm farmer feather fence ferry fiddle field fig finger fire fisherman flag flask flower
flute forest fork fountain fox frog furnace gallery gardener garden gate ghost giant glacier glove goat goose gown grape guard guest
guitar gull hammer harbour harp hat hawk hedge helmet herald heron hill hinge horn horse hotel hunter hut inn island jacket jar jewel
jeweller judge juggler kettle key king kitchen kite kitten knight knot ladder lamb lamp lantern lawyer leaf lemon letter library lion
lizard locket lodge loom magnet maid mailbox map marble market mask mast meadow medal melon merchant mermaid mill miller miner mirror mole
monk monkey monument moth mountain mouse mule museum musician nail napkin neighbour nephew nest net niece notebook nurse oak oar officer
olive onion orange orchard orphan otter oven owl ox paddle page painter painting palace panther parcel parrot partner path peach pear
pebble pen pencil penguin piano pigeon pilgrim pillow pilot pine pipe pirate pitcher plate plough poet pond porch porter postcard potter
prince printer prison puddle pump puppet purse quarry queen quilt rabbit raft ranger rat raven ribbon rider ring river robe robin rocket
rope rose rug sailor satchel saddle saucer scarf scholar school scribe seal servant shark shed sheep shell shepherd shield ship shoe shop
shovel shutter singer sister sketch skull sled smith snail snake soldier spade sparrow spider spoon squirrel stable staircase statue
stove stranger student swan sweater sword table tailor tanner teacher teapot temple tent thief thimble ticket tiger toad torch tower trail
train tray treasure trumpet trunk tunnel turtle uncle urn valley vase vault vessel village violin visitor wagon waiter wall wallet walnut
warehouse watch weaver wheel whistle widow willow window wolf woodpecker workshop wreath wrench yacht zebra
`;

/** Plurals that the endings do not give. */
const irregular: Readonly<Record<string, string>> = {
  fisherman: "fishermen",
  goose: "geese",
  leaf: "leaves",
  mouse: "mice",
  ox: "oxen",
  scarf: "scarves",
  sheep: "sheep",
  thief: "thieves",
  wolf: "wolves",
};

export function pluralOf(noun: string): string {
  const exception = irregular[noun];
  if (exception !== undefined) return exception;
  if (/(?:s|x|z|ch|sh)$/.test(noun)) return `${noun}es`;
  return /[^aeiou]y$/.test(noun) ? `${noun.slice(0, -1)}ies` : `${noun}s`;
}

export const NOUNS: readonly Noun[] = words
  .trim()
  .split(/\s+/)
  .map((sg) => ({ sg, pl: pluralOf(sg) }));
