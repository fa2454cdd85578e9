import { ShapeError } from "@llmeff/native";
import { Tensor } from "./tensor.js";

/** Tensors in arrays and plain objects, such as a model's parameters by name. */
export type TensorTree = Tensor | readonly TensorTree[] | { readonly [key: string]: TensorTree };

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** Every tensor in the arrays and plain objects of a value, in order of their keys as they were inserted. */
export function tensorsOf(value: unknown): readonly Tensor[] {
  const found: Tensor[] = [];
  collect(value, found);
  return found;
}

function collect(value: unknown, found: Tensor[]): void {
  if (value instanceof Tensor) found.push(value);
  else if (Array.isArray(value)) for (const item of value) collect(item, found);
  else if (isPlainObject(value)) for (const item of Object.values(value)) collect(item, found);
}

type Walk = (value: unknown, path: string) => unknown;

function rebuild(
  value: unknown,
  ofTensor: (tensor: Tensor, path: string) => unknown,
  ofOther: Walk,
  path: string,
): unknown {
  const below = (item: unknown, key: string | number) =>
    rebuild(item, ofTensor, ofOther, path === "" ? `${key}` : `${path}.${key}`);
  if (value instanceof Tensor) return ofTensor(value, path);
  if (Array.isArray(value)) return value.map(below);
  if (isPlainObject(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, below(item, key)]));
  }
  return ofOther(value, path);
}

/** A tree of the same form with `fn` of each tensor; `path` joins the keys with dots. */
export function mapTree<T extends TensorTree>(tree: T, fn: (tensor: Tensor, path: string) => Tensor): T {
  const refuse = (value: unknown, path: string) => {
    throw new ShapeError(
      `[mapTree] expected tensors in arrays and plain objects; received ${String(value)} at "${path}".`,
    );
  };
  return rebuild(tree, fn, refuse, "") as T;
}

/** The value with other things in the place of the tensors that `tensorsOf` finds in it, in that order. */
export function replaceTensors(value: unknown, by: readonly unknown[]): unknown {
  const next = by.values();
  return rebuild(
    value,
    () => next.next().value,
    (other) => other,
    "",
  );
}

/** What stands in another tree in the places of the tensors of this one; null below its nulls. */
export function* inPlacesOf(tree: unknown, other: unknown): Generator<unknown> {
  if (tree instanceof Tensor) yield other;
  else if (Array.isArray(tree) || isPlainObject(tree)) {
    for (const [key, item] of Object.entries(tree)) {
      yield* inPlacesOf(item, other === null ? null : (other as Record<string, unknown> | undefined)?.[key]);
    }
  }
}
