/**
 * What one step of each rule costs a tensor: numbers of state, numbers moved to and from memory, and floating-point operations. An ideal fused step
 * reads every array that it needs once and writes every array that it changes once; `p` and `g` are among those moved.
 */
import { blocksOf, mergeSmallDims } from "./merge-dims.js";

/** Of one tensor and one step, on average over the steps. */
export interface TensorCost {
  /** Numbers kept between steps. */
  state: number;
  /** Numbers read and written. */
  moved: number;
  /** Additions, multiplications, divisions and roots, each as one. */
  flops: number;
}

type Shape = readonly number[];
const product = (shape: Shape) => shape.reduce((n, size) => n * size, 1);
const total = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0);

/** A rule that treats every number alike, with so many numbers of state and operations for each; `p`, `g` and the state are read, `p` and the state written. */
const elementwise = (shape: Shape, states: number, flops: number, again = 0): TensorCost => {
  const n = product(shape);
  return { state: n * states, moved: n * (3 + 2 * states + again), flops: n * flops };
};

/** Options that decide what a step costs, by rule; names and defaults are those of the optimizers. */
export interface RuleCostOptions {
  sgd: { momentum?: number; nesterov?: boolean };
  adagrad: object;
  rmsprop: { momentum?: number; centered?: boolean };
  adam: { amsgrad?: boolean };
  adamw: { amsgrad?: boolean };
  nadamw: object;
  lion: object;
  lamb: object;
  scheduleFreeAdamW: object;
  adafactor: { beta1?: number; minFactoredDim?: number };
  sm3: object;
  sonew: { band?: number; graft?: string };
  shampoo: TearfreeCostOptions & { blockSize?: number; statEvery?: number; rootEvery?: number };
  sketchy: TearfreeCostOptions & { blockSize?: number; rank?: number; updateEvery?: number };
  muon: { nsSteps?: number };
  soap: { preconditionFrequency?: number; maxPrecondDim?: number };
  psgdKron: { momentum?: number; updateEvery?: number; maxSize?: number; maxSkew?: number };
  rfdSon: { rank?: number };
  onlineConvex: { algorithm?: string; sketchSize?: number };
}

interface TearfreeCostOptions {
  momentum?: number;
  graft?: string;
  skipRank1?: boolean;
  skipDimGt?: number;
  mergeDims?: number;
}

export type RuleName = keyof RuleCostOptions;

const adam = (shape: Shape, { amsgrad = false }: { amsgrad?: boolean }) =>
  elementwise(shape, amsgrad ? 3 : 2, amsgrad ? 13 : 12);

export const ruleCosts: { readonly [R in RuleName]: (shape: Shape, options: RuleCostOptions[R]) => TensorCost } = {
  sgd: (shape, { momentum = 0, nesterov = false }) =>
    elementwise(shape, momentum > 0 ? 1 : 0, momentum > 0 ? (nesterov ? 6 : 4) : 2),
  adagrad: (shape) => elementwise(shape, 1, 7),
  rmsprop: (shape, { momentum = 0, centered = false }) =>
    elementwise(shape, 1 + Number(centered) + Number(momentum > 0), 9 + (centered ? 5 : 0) + (momentum > 0 ? 2 : 0)),
  adam,
  adamw: adam,
  nadamw: (shape) => elementwise(shape, 2, 15),
  lion: (shape) => elementwise(shape, 1, 10),
  // Both norms are known only when all of the tensor was seen: p and the update are read again.
  lamb: (shape) => elementwise(shape, 2, 18, 3),
  scheduleFreeAdamW: (shape) => elementwise(shape, 2, 20),
  adafactor: (shape, { beta1 = 0, minFactoredDim = 0 }) => {
    const n = product(shape);
    const [rows, columns] = shape.slice(-2) as [number, number];
    const factored = shape.length >= 2 && Math.min(rows, columns) >= minFactoredDim;
    const second = factored ? n / columns + n / rows : n;
    const momentum = beta1 > 0 ? n : 0;
    // The root mean square of the update is known only when all of it was seen.
    return { state: second + momentum, moved: 3 * n + 3 * n + 2 * (second + momentum), flops: 13 * n + 3 * momentum };
  },
  sm3: (shape) => {
    const n = product(shape);
    const axes = shape.length === 0 ? 1 : total(shape);
    return { state: n + axes, moved: 5 * n + 2 * axes, flops: (10 + 2 * shape.length) * n };
  },
  sonew: (shape, { band = 1, graft = "adam" }) => {
    const states = band + 2 + Number(graft === "rmspropNorm");
    const [factor, length] = [
      band === 1 ? 26 : band ** 3 / 3 + 4 * band ** 2 + 10 * band + 12,
      graft === "none" ? 0 : 6,
    ];
    // The graft's factor is known only when all of the tensor was seen: the state is read again, and the update worked out again.
    return elementwise(shape, states, factor + length, graft === "none" ? 0 : states);
  },
  shampoo: (shape, options) => {
    const { blockSize = 1024, statEvery = 1, rootEvery = 1 } = options;
    const blocks = preconditionedBlocks(shape, options, blockSize);
    const squares = total(blocks.flat().map((d) => d * d));
    const products = total(blocks.map((block) => 2 * product(block) * total(block)));
    const cubes = total(blocks.flat().map((d) => d ** 3));
    return added(tearfree(shape, options), {
      state: 2 * squares,
      moved: squares * (2 / statEvery + 2 / rootEvery + 1),
      flops: products / statEvery + products + (25 * cubes) / rootEvery,
    });
  },
  sketchy: (shape, options) => {
    const { blockSize = 0, rank = 128, updateEvery = 1 } = options;
    const axes = preconditionedBlocks(shape, options, blockSize).flatMap((block) =>
      block.map((d) => ({ d, w: product(block) / d, k: Math.min(rank, d) })),
    );
    const state = total(axes.map(({ d, k }) => d * k + k + 1));
    return added(tearfree(shape, options), {
      state,
      moved: state * (2 / updateEvery + 1),
      flops: total(axes.map(({ d, w, k }) => (6 * d * Math.min(d, k + w) ** 2) / updateEvery + 4 * d * w * k)),
    });
  },
  muon: (shape, { nsSteps = 5 }) => {
    if (shape.length < 2) return adam(shape, {});
    const n = product(shape);
    const short = Math.min(shape[0]!, n / shape[0]!);
    return added(elementwise(shape, 1, 8), { state: 0, moved: 0, flops: nsSteps * (4 * short * n + 2 * short ** 3) });
  },
  soap: (shape, { preconditionFrequency = 10, maxPrecondDim = 10_000 }) => {
    const axes = shape.length < 2 ? [] : shape.filter((d) => d <= maxPrecondDim);
    const n = product(shape);
    const squares = total(axes.map((d) => d * d));
    // Each step turns the gradient, turns the update back and adds to the statistics; the QR iteration follows now and then, and turns m.
    const each = total(axes.map((d) => 6 * n * d));
    const refresh = total(axes.map((d) => (2 + 8 / 3 + 2) * d ** 3 + 4 * n * d));
    return added(elementwise(shape, 2, 14), {
      state: 2 * squares,
      moved: squares * (3 + 2 / preconditionFrequency),
      flops: each + refresh / preconditionFrequency,
    });
  },
  psgdKron: (shape, { momentum = 0.9, updateEvery = 1, maxSize = 8192, maxSkew = 1 }) => {
    const n = product(shape);
    const axes = shape.filter((d) => d > 1);
    const isDense = (d: number) => d <= maxSize && d * d <= maxSkew * n;
    const factors = total((axes.length === 0 ? [1] : axes).map((d) => (isDense(d) && d > 1 ? d * d : d) + 1));
    // Q is squared and applied; to be fitted it is applied once more, multiplied with the second moment, and corrected.
    const applied = total(axes.map((d) => (isDense(d) ? 2 * n * d : 2 * n)));
    const cubes = total(axes.map((d) => (isDense(d) ? 2 * d ** 3 : 0)));
    return added(elementwise(shape, momentum > 0 ? 1 : 0, 12), {
      state: factors,
      moved: factors * (1 + 2 / updateEvery),
      flops: applied + cubes + (2 * applied + 2 * cubes) / updateEvery,
    });
  },
  rfdSon: (shape, { rank = 4 }) => added(elementwise(shape, 1, 8), vectorSketch(shape, Math.min(rank, product(shape)))),
  onlineConvex: (shape, { algorithm = "sAdagrad", sketchSize = 10 }) => {
    if (algorithm === "ogd") return elementwise(shape, 0, 2);
    if (algorithm === "adagrad") return elementwise(shape, 1, 5);
    return added(elementwise(shape, 0, 3), vectorSketch(shape, Math.max(1, Math.min(sketchSize, product(shape)) - 1)));
  },
};

/** A sketch of `k` directions of a tensor seen as one vector, and its product with a vector. */
function vectorSketch(shape: Shape, k: number): TensorCost {
  const n = product(shape);
  const state = n * k + k + 1;
  // The Gram matrix of k + 1 rows, its eigenvectors' image, and the update along the directions and beside them.
  return { state, moved: 3 * state, flops: n * (2 * (k + 1) ** 2 + 2 * (k + 1) * k + 4 * k + 6) };
}

/** Graft and momentum of Shampoo and Sketchy, which all tensors have. */
function tearfree(shape: Shape, { momentum = 0.9, graft = "rmsprop" }: TearfreeCostOptions): TensorCost {
  const secondMoment = graft === "rmsprop" || graft === "rmspropNorm";
  const states = Number(momentum > 0) + Number(secondMoment);
  // The length of the update is known only when all of it was seen.
  return elementwise(shape, states, 4 + (momentum > 0 ? 4 : 0) + (secondMoment ? 8 : 0), graft === "none" ? 0 : 2);
}

/** The blocks of a tensor that have preconditioners; none if it follows the graft alone. */
function preconditionedBlocks(
  shape: Shape,
  { graft = "rmsprop", skipRank1 = true, skipDimGt = 4096, mergeDims = 1024 }: TearfreeCostOptions,
  blockSize: number,
): Shape[] {
  const skipped = graft !== "none" && ((skipRank1 && shape.length <= 1) || shape.some((size) => size > skipDimGt));
  const merged = mergeSmallDims(shape, mergeDims);
  return skipped || merged.length === 0 ? [] : blocksOf(merged, blockSize).map((block) => block.shape);
}

function added(a: TensorCost, b: TensorCost): TensorCost {
  return { state: a.state + b.state, moved: a.moved + b.moved, flops: a.flops + b.flops };
}
