/** Nouns that rhyme, by class, for the ends of verse lines. Written for this package. */

const classes = `
night light sight flight height kite knight
stone bone throne tone cone loan
rain train grain lane chain plane crane
sea tree key bee knee plea quay
day bay clay ray tray sleigh hay
fire wire choir spire lyre briar
sand hand land band strand stand
hill mill sill quill drill thrill
snow crow bow glow row toe
song gong throng thong
moon spoon tune dune noon lagoon
bell shell well spell swell cell
ring wing king string spring sling
floor door shore oar core war
house mouse grouse blouse
flame game name frame dame
ground sound hound mound wound
star car jar guitar spar scar
book brook hook cook rook nook
air chair bear pear stair prayer
coast ghost toast post host
bread bed thread shed head sled
`;

export const RHYMES: readonly (readonly string[])[] = classes
  .trim()
  .split("\n")
  .map((line) => line.split(" "));
