/**
 * Trees of tensors as flat maps of paths, for the transforms that work on several leaves at once: leaves of one shape make one batch, so that
 * a step is a few large products instead of many small ones.
 */
import { OptionError } from "@llmeff/native";
import { stack, type Tensor, type TensorTree, unsqueeze } from "@llmeff/tensor";
import { own } from "./records.js";
import type { TransformState } from "./transform.js";
import { mapTrees } from "./trees.js";

/** Tensors by their path in a tree ("layers.0.weight"). */
export type Leaves = ReadonlyMap<string, Tensor>;

export function leavesOf(tree: TensorTree): Leaves {
  const leaves = new Map<string, Tensor>();
  mapTrees((leaf, path) => {
    leaves.set(path, leaf);
    return leaf;
  }, tree);
  return leaves;
}

/** The tree with other tensors in the places of its leaves; leaves that the map lacks stay. */
export function withLeaves<T extends TensorTree>(tree: T, leaves: Leaves): T {
  return mapTrees((leaf, path) => leaves.get(path) ?? leaf, tree);
}

/** A part of a transform's state that belongs to leaves: by path, so that a step of some leaves can take theirs. */
export type ByPath<S extends TransformState> = { readonly [path: string]: S };

/** The state of one leaf. */
export function stateOf<S extends TransformState>(where: string, state: ByPath<S>, path: string): S {
  const found = own(state, path);
  if (found === undefined) {
    throw new OptionError(`[${where}] the state has nothing for "${path}". Was it made by init for other parameters?`);
  }
  return found;
}

/** Items with equal keys together, in the order in which keys appear. */
export function groupBy<T>(items: Iterable<T>, keyOf: (item: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return [...groups.values()];
}

/** What tensors must have in common to make a batch. */
export const batchKey = (x: Tensor): string => `${x.dtype} ${x.device} ${x.shape.join("×")}`;

/** `[N, …]` of `N` tensors of one shape; of a single one a view. */
export function batchOf(tensors: readonly Tensor[]): Tensor {
  return tensors.length === 1 ? unsqueeze(tensors[0]!, 0) : stack(tensors);
}

/** The `i`-th tensor of a batch, a view; under another shape, if one is given, a copy where it must be. */
export function itemOf(batch: Tensor, i: number, shape: readonly number[] = batch.shape.slice(1)): Tensor {
  return batch.slice(0, i, i + 1).reshape(shape);
}
