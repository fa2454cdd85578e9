import { ShapeError } from "@llmeff/native";
import { Tensor, type TensorTree } from "@llmeff/tensor";
import { own } from "./records.js";

type Rest<N> = N extends [] ? [] : N extends [unknown, ...infer R] ? [Tensor, ...Rest<R>] : Tensor[];

/**
 * A tree like the first, with `fn` of the tensors at the same place in all of them and of their path ("layers.0.weight").
 *
 * @throws {ShapeError} if a tree has no tensor, or one of another shape, where the first has one
 */
export function mapTrees<T extends TensorTree, N extends TensorTree[]>(
  fn: (...leaves: [Tensor, ...Rest<N>, string]) => Tensor,
  tree: T,
  ...others: N
): T {
  const visit = (node: TensorTree, rest: readonly unknown[], path: string): TensorTree => {
    if (node instanceof Tensor) {
      for (const other of rest) checkLeaf(node, other, path);
      return (fn as (...leaves: unknown[]) => Tensor)(node, ...rest, path);
    }
    const below = (key: string, child: TensorTree) =>
      visit(
        child,
        rest.map((other) =>
          typeof other === "object" && other !== null ? own(other as Record<string, unknown>, key) : undefined,
        ),
        path === "" ? key : `${path}.${key}`,
      );
    if (Array.isArray(node)) return node.map((child: TensorTree, i) => below(`${i}`, child));
    return Object.fromEntries(Object.entries(node).map(([key, child]) => [key, below(key, child as TensorTree)]));
  };
  return visit(tree, others, "") as T;
}

function checkLeaf(first: Tensor, other: unknown, path: string): void {
  if (!(other instanceof Tensor)) {
    throw new ShapeError(`[optim] the trees differ: "${path}" is a tensor in one and ${typeof other} in another.`);
  }
  if (other.size !== first.size || other.rank !== first.rank) {
    throw new ShapeError(
      `[optim] the trees differ at "${path}": shapes [${first.shape.join(", ")}] and [${other.shape.join(", ")}].`,
    );
  }
}
