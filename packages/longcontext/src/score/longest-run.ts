/**
 * The longest common run of two ranges, in two ways that give the same run. `rows` walks over all pairs of equal elements, which is quick while
 * these are few; the suffix automaton is linear in the ranges whatever is in them, at a higher price an element.
 */

/** `a[startA .. startA + size)` equals `b[startB .. startB + size)`; of several longest ones the first in a, then in b. */
export interface Run {
  startA: number;
  startB: number;
  size: number;
}

export interface Range {
  lowA: number;
  highA: number;
  lowB: number;
  highB: number;
}

/** Id of an element that is not indexed. */
export const NOT_INDEXED = -1;

/** Where each element of b stands: the places of id `k` are `places[first[k] .. first[k + 1])`, ascending. */
export interface ElementIndex {
  first: Int32Array;
  places: Int32Array;
}

/** Finds longest common runs of ranges of one pair of sequences; its tables are kept from call to call. */
export class LongestRun {
  readonly #a: Int32Array;
  readonly #b: Int32Array;
  readonly #index: ElementIndex;
  /** Length of the common run that ends at place j of b and, if `#row[j]` is that row, at the row's place of a. */
  readonly #length: Int32Array;
  readonly #row: Float64Array;
  /** Rows of all calls have numbers of their own, so the tables are never cleared. */
  #rows = 0;
  #automaton: SuffixAutomaton | undefined;

  /**
   * @param a - ids of the elements of a, `NOT_INDEXED` for those that don't stand in the index
   * @param b - ids of the elements of b
   */
  constructor(a: Int32Array, b: Int32Array, index: ElementIndex) {
    this.#a = a;
    this.#b = b;
    this.#index = index;
    this.#length = new Int32Array(b.length);
    this.#row = new Float64Array(b.length).fill(-1);
  }

  /**
   * @param most - no common run of the ranges is longer; a run of this size ends the search
   * @param pairs - so many pairs of equal elements are looked at before the automaton takes over; the default costs what the automaton does
   * @returns size 0 if the ranges have no indexed element in common
   */
  find(range: Range, most: number, pairs = pairsPerAutomaton(range)): Run {
    const run = this.#byRows(range, most, pairs);
    if (run) return run;
    this.#automaton ??= new SuffixAutomaton(this.#b.length);
    return this.#automaton.longestRun(this.#a, this.#b, range, most);
  }

  /** Undefined if there were more than `pairs` pairs of equal elements to look at. */
  #byRows({ lowA, highA, lowB, highB }: Range, most: number, pairs: number): Run | undefined {
    const a = this.#a;
    const length = this.#length;
    const row = this.#row;
    const { first, places } = this.#index;
    // A number is left out, so that the last row of an earlier call is never taken for the one before.
    let number = this.#rows + 1;
    let left = pairs;
    let size = 0;
    let endA = lowA;
    let endB = lowB;
    for (let i = lowA; i < highA && size < most && left >= 0; i++) {
      number++;
      const id = a[i]!;
      if (id === NOT_INDEXED) continue;
      const start = first[id]!;
      let k = upperBound(places, start, first[id + 1]!, highB);
      // Backwards, so that place j - 1 still has the row before; and so the last of equal runs stands first in b.
      while (k > start) {
        const j = places[--k]!;
        if (j < lowB) break;
        left--;
        const run = j > lowB && row[j - 1] === number - 1 ? length[j - 1]! + 1 : 1;
        row[j] = number;
        length[j] = run;
        if (run > size || (run === size && endA === i)) {
          size = run;
          endA = i;
          endB = j;
        }
      }
    }
    this.#rows = number;
    if (left < 0 && size < most) return undefined;
    return size === 0
      ? { startA: lowA, startB: lowB, size }
      : { startA: endA - size + 1, startB: endB - size + 1, size };
  }
}

/** Measured on natural, repetitive and unrelated texts of 2,000 to 100,000 characters. */
function pairsPerAutomaton({ lowA, highA, lowB, highB }: Range): number {
  return 24 * (highA - lowA + highB - lowB) + 512;
}

/** The first place in the ascending `values[low .. high)` that holds `limit` or more. */
function upperBound(values: Int32Array, low: number, high: number, limit: number): number {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle]! < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

const NONE = -1;
const ROOT = 0;

/**
 * Suffix automaton (Blumer et al., "The smallest automaton recognizing the subwords of a text", 1985) of a range of b: every path from the
 * root spells a run of it. Each state keeps where its runs end first. Edges are in one hash table, as alphabets may be large (Chinese), and in a
 * list a state, which a copied state goes through.
 */
class SuffixAutomaton {
  readonly #longest: Int32Array;
  readonly #link: Int32Array;
  readonly #firstEnd: Int32Array;
  readonly #edges: Int32Array;
  readonly #label: Int32Array;
  readonly #target: Int32Array;
  readonly #nextEdge: Int32Array;
  readonly #source: Int32Array;
  readonly #slots: Int32Array;
  #mask = 0;
  #states = 0;
  #edgeCount = 0;

  /** @param length - of the longest range there will be */
  constructor(length: number) {
    // 2n - 1 states and 3n - 4 edges at the most, the edges that the root gets after a separator among them.
    const states = 2 * length + 2;
    const edges = 3 * length + 2;
    this.#longest = new Int32Array(states);
    this.#link = new Int32Array(states);
    this.#firstEnd = new Int32Array(states);
    this.#edges = new Int32Array(states);
    this.#label = new Int32Array(edges);
    this.#target = new Int32Array(edges);
    this.#nextEdge = new Int32Array(edges);
    this.#source = new Int32Array(edges);
    this.#slots = new Int32Array(tableSize(edges));
  }

  longestRun(a: Int32Array, b: Int32Array, { lowA, highA, lowB, highB }: Range, most: number): Run {
    this.#build(b, lowB, highB);
    let state = ROOT;
    let run = 0;
    let best: Run = { startA: lowA, startB: lowB, size: 0 };
    for (let i = lowA; i < highA && best.size < most; i++) {
      const id = a[i]!;
      let edge = id === NOT_INDEXED ? NONE : this.#find(state, id);
      while (edge === NONE && state !== ROOT && id !== NOT_INDEXED) {
        state = this.#link[state]!;
        run = this.#longest[state]!;
        edge = this.#find(state, id);
      }
      if (edge === NONE) {
        state = ROOT;
        run = 0;
        continue;
      }
      state = this.#target[edge]!;
      run++;
      if (run > best.size) best = { startA: i - run + 1, startB: this.#firstEnd[state]! - run + 1, size: run };
    }
    return best;
  }

  #build(b: Int32Array, low: number, high: number): void {
    const size = tableSize(3 * (high - low) + 2);
    this.#mask = size - 1;
    this.#slots.fill(NONE, 0, size);
    this.#states = 0;
    this.#edgeCount = 0;
    this.#newState(0, NONE, NONE);
    let last = ROOT;
    // What isn't indexed parts the range: after it the runs begin anew.
    for (let j = low; j < high; j++) last = b[j] === NOT_INDEXED ? ROOT : this.#extend(last, b[j]!, j);
  }

  /** Adds the element at place j after the runs that end in state `last`. */
  #extend(last: number, id: number, j: number): number {
    const known = this.#find(last, id);
    // Only after a separator: then the run is in the automaton already, maybe as one of several of its state. A second state for it would give
    // the same runs, but more edges than there is room for.
    if (known !== NONE) {
      const next = this.#target[known]!;
      return this.#longest[next] === this.#longest[last]! + 1 ? next : this.#split(last, id, next);
    }
    const added = this.#newState(this.#longest[last]! + 1, ROOT, j);
    let state = last;
    let edge: number = NONE;
    while (state !== NONE) {
      edge = this.#find(state, id);
      if (edge !== NONE) break;
      this.#newEdge(state, id, added);
      state = this.#link[state]!;
    }
    if (state === NONE) return added;
    const next = this.#target[edge]!;
    this.#link[added] = this.#longest[next] === this.#longest[state]! + 1 ? next : this.#split(state, id, next);
    return added;
  }

  /** Parts the shorter runs of `next`, those by way of `state`, into a state of their own. */
  #split(state: number, id: number, next: number): number {
    const copy = this.#newState(this.#longest[state]! + 1, this.#link[next]!, this.#firstEnd[next]!);
    for (let e = this.#edges[next]!; e !== NONE; e = this.#nextEdge[e]!)
      this.#newEdge(copy, this.#label[e]!, this.#target[e]!);
    this.#link[next] = copy;
    for (let s = state; s !== NONE; s = this.#link[s]!) {
      const edge = this.#find(s, id);
      if (edge === NONE || this.#target[edge] !== next) break;
      this.#target[edge] = copy;
    }
    return copy;
  }

  #newState(longest: number, link: number, firstEnd: number): number {
    const state = this.#states++;
    this.#longest[state] = longest;
    this.#link[state] = link;
    this.#firstEnd[state] = firstEnd;
    this.#edges[state] = NONE;
    return state;
  }

  #newEdge(state: number, id: number, target: number): void {
    const edge = this.#edgeCount++;
    this.#source[edge] = state;
    this.#label[edge] = id;
    this.#target[edge] = target;
    this.#nextEdge[edge] = this.#edges[state]!;
    this.#edges[state] = edge;
    let slot = hash(state, id) & this.#mask;
    while (this.#slots[slot] !== NONE) slot = (slot + 1) & this.#mask;
    this.#slots[slot] = edge;
  }

  #find(state: number, id: number): number {
    let slot = hash(state, id) & this.#mask;
    for (;;) {
      const edge = this.#slots[slot]!;
      if (edge === NONE || (this.#source[edge] === state && this.#label[edge] === id)) return edge;
      slot = (slot + 1) & this.#mask;
    }
  }
}

function hash(state: number, id: number): number {
  const mixed = Math.imul(state, 0x9e3779b1) ^ Math.imul(id + 1, 0x85ebca6b);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

/** A power of two with room for so many entries at a load of a half. */
function tableSize(entries: number): number {
  return 2 ** Math.ceil(Math.log2(2 * entries));
}
