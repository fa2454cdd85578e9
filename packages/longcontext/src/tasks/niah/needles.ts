/** Needles: keys with values, all different, that no other line of a prompt holds. */
import type { Random } from "@llmeff/data";
import { NameStream } from "../../scribe/names.js";
import { Permutation } from "../../scribe/permutation.js";
import { WordKeys } from "../../scribe/word-keys.js";

export type NeedleKind = "words" | "numbers" | "uuids" | "cities";

/** The `i`-th of a stream of different strings. */
type Strings = (i: number) => string;

const LEAST_NUMBER = 1_000_000;
const NUMBERS = 9_000_000;

function numbers(random: Random): Strings {
  const order = new Permutation(NUMBERS, random);
  return (i) => String(LEAST_NUMBER + order.at(i));
}

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, "0");

/** Version 4: random but for version and variant. Its first 32 bits run through a permutation, so no two are equal. */
function uuids(random: Random): Strings {
  const orders = Array.from({ length: 4 }, () => new Permutation(2 ** 32, random));
  return (i) => {
    const [a, b, c, d] = orders.map((order) => order.at(i)) as [number, number, number, number];
    const variant = 0x8000 | (c & 0x3fff);
    return `${hex(a, 8)}-${hex(b >>> 16, 4)}-4${hex(b & 0xfff, 3)}-${hex(variant, 4)}-${hex(c >>> 16, 4)}${hex(d, 8)}`;
  };
}

/** `count` limits how many may be asked for; undefined: practically none. */
export function needleStrings(kind: NeedleKind, random: Random): Strings {
  if (kind === "numbers") return numbers(random);
  if (kind === "uuids") return uuids(random);
  if (kind === "cities") {
    const names = new NameStream(random, "place");
    return (i) => names.at(i);
  }
  const words = new WordKeys(random);
  return (i) => words.at(i);
}

export function needleLine(key: string, value: string): string {
  return `The registry code for ${key} is ${value}.`;
}
