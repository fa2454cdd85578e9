/** What texts are about: plural noun phrases, so that one set of frames fits them all. Written for this package. */

const list = `
lighthouses, tide pools, lost umbrellas, night trains, honey bees, paper kites, abandoned mines, rooftop gardens, street musicians, old maps,
winter markets, clay ovens, migrating geese, broken clocks, mountain huts, secret staircases, public fountains, pocket watches, river barges,
wool sweaters, fallen leaves, ink stains, morning fogs, library ladders, glass marbles, wooden boats, chess clubs, village fairs, railway
bridges, handwritten letters, stray cats, sand dunes, church bells, hot air balloons, spice merchants, apple orchards, thunderstorms, ice
skates, cardboard boxes, wild mushrooms, puppet shows, canal locks, frozen lakes, tailor shops, carrier pigeons, corner bakeries, desert
caravans, fishing nets, ghost stories, harvest moons, insect collections, jazz bands, kitchen knives, leaky roofs, meteor showers, new
neighbours, ocean liners, piano lessons, quarry ponds, roadside inns, sailing schools, tea gardens, underground rivers, violin makers, water
mills, young inventors, zoo keepers, attic rooms, barn owls, cheese cellars, dragonflies, evening walks, family recipes, garden gnomes,
hedge mazes, island ferries, jigsaw puzzles, knitting circles, long queues, milk bottles, narrow alleys, open windows, paper mills, quiet
Sundays, rusty bicycles, salt marshes, train stations, unfinished bridges, volcanic islands, wedding cakes, yellow taxis, antique dolls,
bird houses, coal fires, dusty archives, early risers, flower sellers, grain silos, hidden passages, iron gates, juggling acts, king penguins,
lace curtains, market stalls, night watchmen, opera singers, peat bogs, quilted blankets, rain barrels, snow ploughs, toy soldiers, unpaid
debts, vegetable gardens, weather vanes, rowing teams, amber beads, bell towers, city foxes, dance halls, empty theatres, field hospitals,
gold panners, harbour seals, ink wells, jam jars, kite festivals, lemon trees, mail coaches, nut crackers, oil lamps, patchwork quilts, quill
pens, race horses, stone circles, travelling circuses, urban beekeepers, velvet curtains, wicker baskets, alpine meadows, brass bands,
coffee houses, deep wells, elder trees, fire brigades, glass blowers, horse shoes, ivy walls, jewel thieves, knotted ropes, log cabins,
mirror makers, net menders, owl pellets, postage stamps, rag dolls, silver spoons, tin whistles, tree houses, vanished villages, wax candles,
wind chimes, yarn shops, border posts, cave paintings, drum makers, egg hunts, ferry captains, glove factories, hill forts, moth traps
`;

export const TOPICS: readonly string[] = list
  .trim()
  .split(",")
  .map((topic) => topic.trim().replace(/\s+/g, " "));
