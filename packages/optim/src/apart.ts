/**
 * Parameters that share elements would be stepped twice, by two threads at once.
 */
import { engine, OptionError } from "@llmeff/native";
import { Tensor } from "@llmeff/tensor";
import type { Parameter } from "./storage.js";

/** Which part of a block of memory a parameter is, in elements or bytes. */
interface Place {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/**
 * Refuses parameters of one kind of which two share elements: one array, one tensor, or views that overlap. Parts of one block beside each other are
 * welcome. Views with gaps are passed over, because columns of a matrix lie between each other and share nothing; no optimizer steps them.
 *
 * @throws {OptionError} naming both
 */
export function requireApart(where: string, entries: readonly (readonly [string, Parameter])[]): void {
  const refuse = (a: string, b: string) => {
    throw new OptionError(
      `[${where}] parameters "${a}" and "${b}" are the same memory, which would be stepped twice. Give it one name, and use that for both.`,
    );
  };
  const names = new Map<Parameter, string>();
  for (const [name, value] of entries) {
    if (names.has(value)) refuse(names.get(value)!, name);
    names.set(value, name);
  }
  for (const places of placesByBlock(entries)) {
    const inOrder = places.sort((a, b) => a.start - b.start);
    for (const [i, { name, start }] of inOrder.slice(1).entries()) {
      const before = inOrder[i]!;
      if (before.end > start) refuse(before.name, name);
    }
  }
}

/** What lies in each block of memory, for blocks of which others than one parameter may be parts. */
function placesByBlock(entries: readonly (readonly [string, Parameter])[]): Place[][] {
  const blocks = new Map<ArrayBufferLike | Tensor, Place[]>();
  const put = (block: ArrayBufferLike | Tensor, place: Place) => {
    const places = blocks.get(block);
    if (places) places.push(place);
    else blocks.set(block, [place]);
  };
  /** One tensor of each block, which stands for it. */
  const firsts: Tensor[] = [];
  for (const [name, value] of entries) {
    if (!(value instanceof Tensor)) {
      put(value.buffer, { name, start: value.byteOffset, end: value.byteOffset + value.byteLength });
      continue;
    }
    if (value.disposed || value.size === 0 || !value.isContiguous || !engine().isShared(value.handle)) continue;
    let start: number | undefined;
    const first = firsts.find((one) => {
      start = engine().distance(one.handle, value.handle);
      return start !== undefined;
    });
    if (first === undefined) firsts.push(value);
    put(first ?? value, { name, start: start ?? 0, end: (start ?? 0) + value.size });
  }
  return [...blocks.values()];
}
