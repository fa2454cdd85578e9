import { ShapeError } from "@llmeff/native";
import { scope } from "../scope.js";
import { formatShape, maxRank, reshapedStrides, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkFloating } from "./arguments.js";
import { mul } from "./binary.js";
import { parseEinsum } from "./einsum-spec.js";
import { matmul } from "./matmul.js";
import { sum } from "./reduce.js";
import { diagonal } from "./slice.js";
import { expand, movedim, permute, reshape } from "./views.js";

/** A tensor whose axes have names, each its own. */
interface Operand {
  x: Tensor;
  labels: readonly string[];
}

/**
 * Sums of products by Einstein's notation, as `numpy.einsum` and `torch.einsum` have it: a letter names an axis; letters that the result
 * doesn't have are summed over.
 *
 * - a letter twice in one operand takes the diagonal;
 * - `...` stands for leading axes, which broadcast;
 * - without `->` the result has, in alphabetical order after `...`, the letters that occur once.
 *
 * Two operands at a time, the pair with the fewest products first, become one batched matrix product of views; memory is copied only where
 * several axes that don't lie behind each other must be one.
 *
 * @throws {OptionError} if the specification is no such formula or has another number of operands
 * @throws {ShapeError} if an operand has other axes than its letters, or a letter stands for different sizes
 *
 * @example
 * einsum("bhtd,bhsd->bhts", q, k); // logits of attention
 * einsum("...ii->...", x); // traces
 */
export function einsum(spec: string, ...tensors: readonly Tensor[]): Tensor {
  checkFloating("einsum", Object.fromEntries(tensors.map((x, i) => [`operand ${i + 1}`, x])));
  const { inputs, output } = parseEinsum(
    spec,
    tensors.map((x) => x.rank),
  );
  const sizes = sizesOf(inputs, tensors);
  return scope(() => {
    const given = tensors.map((x, i) => stretched(withoutRepeats({ x, labels: inputs[i]! }), sizes));
    let operands = given.map((operand, i) => summed(operand, wanted(given, output, i)));
    while (operands.length > 1) {
      const [i, j] = cheapestPair(operands, sizes);
      const rest = operands.filter((_, k) => k !== i && k !== j);
      const kept = new Set([...output, ...rest.flatMap(({ labels }) => labels)]);
      operands = [contract(operands[i]!, operands[j]!, kept, sizes), ...rest];
    }
    const { x, labels } = operands[0]!;
    return permute(
      x,
      output.map((label) => labels.indexOf(label)),
    );
  });
}

/** The labels that the result or another operand than the `i`-th asks for. */
function wanted(operands: readonly Operand[], output: readonly string[], i: number): Set<string> {
  return new Set([...output, ...operands.filter((_, k) => k !== i).flatMap(({ labels }) => labels)]);
}

/** Of each label; axes of `...` (labels that start with a dot) may have size 1 where others are longer. */
function sizesOf(inputs: readonly (readonly string[])[], tensors: readonly Tensor[]): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const [i, labels] of inputs.entries()) {
    for (const [axis, label] of labels.entries()) {
      const n = tensors[i]!.shape[axis]!;
      const before = sizes.get(label) ?? n;
      const broadcasts = label.startsWith(".") && (n === 1 || before === 1);
      if (n !== before && !broadcasts) {
        const name = label.startsWith(".") ? "..." : `"${label}"`;
        const shapes = tensors.map((x) => formatShape(x.shape)).join(", ");
        throw new ShapeError(`[einsum] ${name} stands for sizes ${before} and ${n}; the operands are ${shapes}.`);
      }
      sizes.set(label, before === 1 ? n : before);
    }
  }
  return sizes;
}

/** Takes the diagonal over labels that an operand has twice. */
function withoutRepeats({ x, labels }: Operand): Operand {
  const second = labels.findIndex((label, axis) => labels.indexOf(label) < axis);
  if (second < 0) return { x, labels };
  const label = labels[second]!;
  const first = labels.indexOf(label);
  const rest = labels.filter((_, axis) => axis !== first && axis !== second);
  return withoutRepeats({ x: diagonal(movedim(x, [first, second], [-2, -1])), labels: [...rest, label] });
}

function stretched({ x, labels }: Operand, sizes: ReadonlyMap<string, number>): Operand {
  return { x: expand(x, shapeOf(labels, sizes)), labels };
}

/** Sums over the labels that nobody wants. */
function summed({ x, labels }: Operand, kept: ReadonlySet<string>): Operand {
  const axis = [...labels.keys()].filter((i) => !kept.has(labels[i]!));
  if (axis.length === 0) return { x, labels };
  return { x: sum(x, { axis }), labels: labels.filter((label) => kept.has(label)) };
}

function shapeOf(labels: readonly string[], sizes: ReadonlyMap<string, number>): number[] {
  return labels.map((label) => sizes.get(label)!);
}

/** The pair with the fewest products of elements; the leftmost of equals. */
function cheapestPair(operands: readonly Operand[], sizes: ReadonlyMap<string, number>): [number, number] {
  let best: [number, number] = [0, 1];
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < operands.length; i++) {
    for (let j = i + 1; j < operands.length; j++) {
      const labels = new Set([...operands[i]!.labels, ...operands[j]!.labels]);
      const products = sizeOf(shapeOf([...labels], sizes));
      if (products < least) [best, least] = [[i, j], products];
    }
  }
  return best;
}

/** The sum of products of two operands over the labels of both that are not kept. Labels of one alone are all kept. */
function contract(a: Operand, b: Operand, kept: ReadonlySet<string>, sizes: ReadonlyMap<string, number>): Operand {
  const shared = a.labels.filter((label) => b.labels.includes(label));
  const batch = shared.filter((label) => kept.has(label));
  const inner = shared.filter((label) => !kept.has(label));
  const left = a.labels.filter((label) => !shared.includes(label));
  const right = b.labels.filter((label) => !shared.includes(label));
  const labels = [...batch, ...left, ...right];
  if (labels.length > maxRank) {
    throw new ShapeError(
      `[einsum] a product of two operands would have ${labels.length} axes; the most are ${maxRank}.`,
    );
  }
  if (inner.length === 0) {
    return { x: mul(spread(a, labels, sizes), spread(b, labels, sizes)), labels };
  }
  // The order of the summed axes is free: that of b, if only with it their memory is one run in both.
  const ofB = b.labels.filter((label) => inner.includes(label));
  const summedOver =
    !(mergeable(a, inner) && mergeable(b, inner)) && mergeable(a, ofB) && mergeable(b, ofB) ? ofB : inner;
  const product = matmul(grouped(a, batch, left, summedOver, sizes), grouped(b, batch, summedOver, right, sizes));
  return { x: reshape(product, shapeOf(labels, sizes)), labels };
}

function ordered({ x, labels }: Operand, order: readonly string[]): Tensor {
  return permute(
    x,
    order.map((label) => labels.indexOf(label)),
  );
}

/** A view with all of `labels` as axes in that order; those that the operand lacks have size 1. */
function spread(operand: Operand, labels: readonly string[], sizes: ReadonlyMap<string, number>): Tensor {
  const own = labels.filter((label) => operand.labels.includes(label));
  const shape = labels.map((label) => (operand.labels.includes(label) ? sizes.get(label)! : 1));
  return reshape(ordered(operand, own), shape);
}

/** A stack of matrices: `[…batch, rows, columns]`, or `[batch, rows, columns]` where those would be too many axes. */
function grouped(
  operand: Operand,
  batch: readonly string[],
  rows: readonly string[],
  columns: readonly string[],
  sizes: ReadonlyMap<string, number>,
): Tensor {
  const stack = shapeOf(batch, sizes);
  const lead = stack.length + 2 <= maxRank ? stack : [sizeOf(stack)];
  const shape = [...lead, sizeOf(shapeOf(rows, sizes)), sizeOf(shapeOf(columns, sizes))];
  return reshape(ordered(operand, [...batch, ...rows, ...columns]), shape);
}

/** Whether those axes, in that order, are one run of memory. */
function mergeable({ x, labels }: Operand, order: readonly string[]): boolean {
  const axes = order.map((label) => labels.indexOf(label));
  const shape = axes.map((axis) => x.shape[axis]!);
  const strides = axes.map((axis) => x.strides[axis]!);
  return reshapedStrides(shape, strides, [sizeOf(shape)]) !== undefined;
}
