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

type Replace = (tensor: Tensor, path: string) => Tensor;

function rebuild(value: unknown, fn: Replace, other: (value: unknown, path: string) => unknown, path: string): unknown {
  const below = (key: string | number) => (path === "" ? `${key}` : `${path}.${key}`);
  if (value instanceof Tensor) return fn(value, path);
  if (Array.isArray(value)) return value.map((item, i) => rebuild(item, fn, other, below(i)));
  if (isPlainObject(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, rebuild(item, fn, other, below(key))]));
  }
  return other(value, path);
}

/** A tree of the same form with `fn` of each tensor; `path` joins the keys with dots. */
export function mapTree<T extends TensorTree>(tree: T, fn: Replace): T {
  const refuse = (value: unknown, path: string) => {
    throw new ShapeError(
      `[mapTree] expected tensors in arrays and plain objects; received ${String(value)} at "${path}".`,
    );
  };
  return rebuild(tree, fn, refuse, "") as T;
}

/** The value with `fn` of each tensor that `tensorsOf` finds in it, in the same order; what else is in it stays. */
export function mapTensors<T>(value: T, fn: (tensor: Tensor) => Tensor): T {
  return rebuild(value, fn, (other) => other, "") as T;
}
