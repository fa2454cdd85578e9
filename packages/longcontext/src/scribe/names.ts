/** Invented proper names from syllables, so that nothing a model has read helps. */
import type { Random } from "@llmeff/data";
import { Permutation } from "./permutation.js";

const starts =
  `Bar Bel Bram Cal Cor Dal Dor Dra Dun Ed Fal Fen Fro Gar Gol Gre Hal Hes Hol Im Jas Jor Kal Kes Kip Lan Lor Lum Mar Mel Mor Nal Ned Nim Nor
Ol Or Pal Pem Pil Por Quil Ras Rem Ril Ros Sal Sel Sim Sor Tal Tam Tel Tor Tru Ul Var Vel Vin Vol Wal Wen Wil Wim Yar Yol Zan Zel Zor`.split(
    /\s+/,
  );
const middles =
  `a adi afe ako ama ani aro asu ate avi e edo efi eka elu emi ena eri eso eta evo i ibe ido iga ika ilo ima ine iro ise ita
o oba odi ofe oka ola omi oni ora osi oto`.split(/\s+/);
const personEnds =
  `bb ck d dd ff gg k l lf lk lm ln lt m mb n nd ng nk nt p r rd rk rm rn rt s sk sp ss st th x zz`.split(" ");
const placeEnds =
  `bridge brook burg bury by cliff combe dale den field ford gate grove ham haven hold holm mere minster moor mouth port
ridge shaw stead stow thorpe vale wick wold worth`.split(/\s+/);
const firmEnds =
  `bo bra co dra dyne fex gra lane lex lo max mo nex pla quo rix sta tek tra tron va vex vio wa zo`.split(" ");

/** Number of different names of each kind. */
const count = (ends: readonly string[]): number => starts.length * middles.length * ends.length;

function build(index: number, ends: readonly string[]): string {
  const start = starts[index % starts.length]!;
  const rest = Math.floor(index / starts.length);
  return start + middles[rest % middles.length]! + ends[Math.floor(rest / middles.length) % ends.length]!;
}

export const NAME_COUNT = count(personEnds);
export const PLACE_COUNT = count(placeEnds);

export const personName = (index: number): string => build(index, personEnds);
export const placeName = (index: number): string => build(index, placeEnds);
export const firmName = (index: number): string => build(index, firmEnds);

/** Names without repetition: as many as `count` says, then they begin anew with a second name added. */
export class NameStream {
  readonly #order: Permutation;
  readonly #name: (index: number) => string;
  #next = 0;

  constructor(random: Random, kind: "person" | "place" | "firm" = "person") {
    const [size, name] = {
      person: [NAME_COUNT, personName] as const,
      place: [PLACE_COUNT, placeName] as const,
      firm: [count(firmEnds), firmName] as const,
    }[kind];
    this.#order = new Permutation(size, random);
    this.#name = name;
  }

  next(): string {
    return this.at(this.#next++);
  }

  /** The `i`-th name of the stream. */
  at(i: number): string {
    const { size } = this.#order;
    const name = this.#name(this.#order.at(i));
    return i < size ? name : `${name} ${this.#name(this.#order.at(Math.floor(i / size) - 1))}`;
  }
}
