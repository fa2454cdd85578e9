/**
 * States of transforms, which are trees, as the flat named arrays and numbers that a file holds, and back.
 */
import { OptionError } from "@llmeff/native";
import { type DType, Tensor, where } from "@llmeff/tensor";
import { emptyRecord } from "./records.js";
import type { TransformState } from "./transform.js";

/** What stays of a state when its arrays and numbers are taken out. */
export interface StateForm {
  /** With the name of the array or number in the place of each. */
  readonly tree: FormTree;
  readonly arrays: Readonly<Record<string, { readonly shape: readonly number[]; readonly dtype: DType }>>;
}

type FormTree =
  | { readonly array: string }
  | { readonly number: string }
  | { readonly items: readonly FormTree[] }
  | { readonly fields: Readonly<Record<string, FormTree>> };

export interface FlatState {
  arrays: Record<string, Tensor>;
  numbers: Record<string, number>;
  form: StateForm;
}

/**
 * The arrays and numbers of a state by their path, without the name of `holder` where that alone is the key: `m` for `state.m["wte.weight"]` of
 * the parameter "wte.weight".
 */
export function flattenState(holder: string, state: TransformState): FlatState {
  const arrays = emptyRecord<Tensor>();
  const numbers = emptyRecord<number>();
  const visit = (node: TransformState, path: readonly (string | number)[]): FormTree => {
    const name = path.join(".") || "state";
    if (node instanceof Tensor) {
      arrays[name] = node;
      return { array: name };
    }
    if (typeof node === "number") {
      numbers[name] = node;
      return { number: name };
    }
    if (Array.isArray(node)) return { items: node.map((child: TransformState, i) => visit(child, [...path, i])) };
    const entries = Object.entries(node);
    const isHolders = entries.length === 1 && entries[0]![0] === holder;
    return {
      fields: Object.fromEntries(entries.map(([key, child]) => [key, visit(child, isHolders ? path : [...path, key])])),
    };
  };
  const tree = visit(state, []);
  const form = {
    tree,
    arrays: Object.fromEntries(Object.entries(arrays).map(([name, { shape, dtype }]) => [name, { shape, dtype }])),
  };
  return { arrays, numbers, form };
}

/**
 * The arrays and numbers that a state has in the places of a form. A merged state has those of other parameters beside them.
 *
 * @throws {OptionError} if it lacks one, or, unless `merged`, has others; for an array of another shape or dtype, and a number that isn't finite
 */
export function readState(
  kind: string,
  holder: string,
  state: TransformState,
  form: StateForm,
  merged: boolean,
): Pick<FlatState, "arrays" | "numbers"> {
  const where = `[${kind}] the transform's state for "${holder}"`;
  const arrays = emptyRecord<Tensor>();
  const numbers = emptyRecord<number>();
  const changed = () =>
    new OptionError(`${where} changed its form in a step; init and update must return the same keys.`);
  const visit = (node: TransformState | undefined, tree: FormTree): void => {
    if ("array" in tree) {
      if (!(node instanceof Tensor)) throw changed();
      requireSame(where, tree.array, node, form.arrays[tree.array]!);
      arrays[tree.array] = node;
    } else if ("number" in tree) {
      if (typeof node !== "number") throw changed();
      requireFinite(where, tree.number, node);
      numbers[tree.number] = node;
    } else if ("items" in tree) {
      if (!Array.isArray(node) || node.length !== tree.items.length) throw changed();
      for (let i = 0; i < tree.items.length; i++) visit(node[i], tree.items[i]!);
    } else {
      if (typeof node !== "object" || node instanceof Tensor || Array.isArray(node)) throw changed();
      const record = node as { readonly [key: string]: TransformState };
      const keys = Object.keys(tree.fields);
      if (!merged && Object.keys(record).length !== keys.length) throw changed();
      for (const key of keys) visit(record[key], tree.fields[key]!);
    }
  };
  visit(state, form.tree);
  return { arrays, numbers };
}

function requireSame(where: string, name: string, array: Tensor, was: StateForm["arrays"][string]): void {
  const { shape, dtype } = array;
  if (dtype === was.dtype && shape.length === was.shape.length && shape.every((n, axis) => n === was.shape[axis]))
    return;
  throw new OptionError(
    `${where} had a ${was.dtype} array "${name}" of shape [${was.shape.join(", ")}] and now has a ${dtype} one of shape [${shape.join(", ")}].`,
  );
}

function requireFinite(where: string, name: string, value: number): void {
  if (!Number.isFinite(value))
    throw new OptionError(`${where} has the number "${name}" = ${value}, which JSON can't hold.`);
}

/** The state of that form with these arrays and numbers. */
export function rebuildState(
  form: StateForm,
  arrays: Readonly<Record<string, Tensor>>,
  numbers: Readonly<Record<string, number>>,
): TransformState {
  const build = (node: FormTree): TransformState => {
    if ("array" in node) return arrays[node.array]!;
    if ("number" in node) return numbers[node.number]!;
    if ("items" in node) return node.items.map(build);
    return Object.fromEntries(Object.entries(node.fields).map(([key, child]) => [key, build(child)]));
  };
  return build(form.tree);
}

/** The arrays of `next` where `condition` (bool `[]`) holds, else those of `old`; numbers of `next`. */
export function selectState<S extends TransformState>(condition: Tensor, next: S, old: S): S {
  const select = (a: TransformState, b: TransformState): TransformState => {
    if (a instanceof Tensor) return where(condition, a, b as Tensor);
    if (typeof a === "number") return a;
    if (Array.isArray(a)) return a.map((item, i) => select(item, (b as readonly TransformState[])[i]!));
    return Object.fromEntries(
      Object.entries(a).map(([key, item]) => [key, select(item, (b as Record<string, TransformState>)[key]!)]),
    );
  };
  return select(next, old) as S;
}

/**
 * The states of several parameters as the one that the transform would have had, had they been in one tree: everything in a state belongs to a
 * parameter, under its name, but for numbers, which must be equal.
 */
export function mergeStates(kind: string, states: readonly TransformState[]): TransformState {
  const first = states[0]!;
  if (states.length === 1) return first;
  if (first instanceof Tensor || typeof first === "number") {
    if (states.every((state) => state === first)) return first;
    throw new OptionError(
      `[${kind}] the states of parameters that are stepped together differ in what isn't theirs alone. Load all of them from one file.`,
    );
  }
  if (Array.isArray(first)) {
    const lists = states as readonly (readonly TransformState[])[];
    return first.map((_, i) =>
      mergeStates(
        kind,
        lists.map((list) => list[i]!),
      ),
    );
  }
  const records = states as readonly { readonly [key: string]: TransformState }[];
  const keys = new Set(records.flatMap((record) => Object.keys(record)));
  return Object.fromEntries(
    [...keys].map((key) => [
      key,
      mergeStates(
        kind,
        records.flatMap((record) => (Object.hasOwn(record, key) ? [record[key]!] : [])),
      ),
    ]),
  );
}
