import { OptionError } from "@llmeff/native";
import type { Tensor, TensorTree } from "@llmeff/tensor";
import { type GradientTransformation, masked, type TransformState } from "./transform.js";
import { mapTrees } from "./trees.js";

/** States by label. */
export type PartitionState = { readonly [label: string]: TransformState };

/**
 * Applies to each parameter the transform of its label: `u_p = transforms[label(p)](g)_p`. A transform sees the parameters of its label only, so that a
 * norm in it is theirs. The same as optax's `partition` (`multi_transform`).
 *
 * @param transforms - by label; `setToZero()` freezes
 * @param labelOf - the label of a parameter, by its path ("layers.0.weight") and tensor
 * @throws {OptionError} from `init` and `update` for a label that has no transform
 *
 * @example
 * const transform = partition(
 *   { matrices: sonew(1e-2), others: adamw(1e-3) },
 *   (path, p) => (p.rank >= 2 && !path.startsWith("embed") ? "matrices" : "others"),
 * );
 */
export function partition<L extends string>(
  transforms: Readonly<Record<L, GradientTransformation>>,
  labelOf: (path: string, param: Tensor) => L,
): GradientTransformation<PartitionState> {
  const parts = Object.entries<GradientTransformation>(transforms).map(
    ([label, transform]) => [label, masked(transform, (path, param) => labelOf(path, param) === label)] as const,
  );
  const checkLabels = (params: TensorTree) =>
    mapTrees((param, path) => {
      const label = labelOf(path, param);
      if (Object.hasOwn(transforms, label)) return param;
      throw new OptionError(
        `[partition] "${path}" has the label ${JSON.stringify(label)}, which has no transform. Labels: ${Object.keys(transforms).join(", ")}.`,
      );
    }, params);
  return {
    init(params) {
      checkLabels(params);
      return Object.fromEntries(parts.map(([label, part]) => [label, part.init(params)]));
    },
    update(grads, states, params) {
      checkLabels(params);
      let updates = grads;
      const next = parts.map(([label, part]) => {
        const result = part.update(updates, states[label]!, params);
        updates = result.updates;
        return [label, result.state] as const;
      });
      return { updates, state: Object.fromEntries(next) };
    },
  };
}
