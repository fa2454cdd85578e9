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
export function* tensorsOf(value: unknown): Generator<Tensor> {
  if (value instanceof Tensor) yield value;
  else if (Array.isArray(value)) for (const item of value) yield* tensorsOf(item);
  else if (isPlainObject(value)) for (const item of Object.values(value)) yield* tensorsOf(item);
}

/** A tree of the same form with `fn` of each tensor; `path` joins the keys with dots. */
export function mapTree<T extends TensorTree>(tree: T, fn: (tensor: Tensor, path: string) => Tensor, path = ""): T {
  const below = (key: string | number) => (path === "" ? `${key}` : `${path}.${key}`);
  if (tree instanceof Tensor) return fn(tree, path) as T;
  if (Array.isArray(tree)) return tree.map((item, i) => mapTree(item as TensorTree, fn, below(i))) as unknown as T;
  if (isPlainObject(tree)) {
    return Object.fromEntries(
      Object.entries(tree).map(([key, item]) => [key, mapTree(item as TensorTree, fn, below(key))]),
    ) as T;
  }
  throw new ShapeError(
    `[mapTree] expected tensors in arrays and plain objects; received ${String(tree)} at "${path}".`,
  );
}
