/**
 * Gradient transforms in the manner of optax: pure pairs of `init` and `update` over trees of tensors, to be chained. What `update` returns
 * is added to the parameters, so sign and learning rate are inside. Tensors that they make belong to the caller: run them in a `scope`.
 */
import {
  add,
  clip as clipValues,
  div,
  globalNorm,
  mean,
  minimum,
  mul,
  sub,
  type Tensor,
  type TensorTree,
  tensorsOf,
  zerosLike,
} from "@llmeff/tensor";
import { checkBeta, checkNotNegative, checkNumber, checkPositive, requireOptions } from "./check.js";
import { emptyRecord, own } from "./records.js";
import { asSchedule, type ScalarOrSchedule, type Schedule } from "./schedules.js";
import { mapTrees } from "./trees.js";

/** State of a transform: tensors, numbers, and arrays and plain objects of them. */
export type TransformState = Tensor | number | readonly TransformState[] | { readonly [key: string]: TransformState };

export interface GradientTransformation<S extends TransformState = TransformState> {
  init(params: TensorTree): S;
  /** `updates` has the form of `grads`; neither `grads` nor `state` is changed. */
  update<T extends TensorTree>(grads: T, state: S, params: T): { updates: T; state: S };
}

type Empty = Record<string, never>;

/** A transform without state. @internal */
export function stateless(update: <T extends TensorTree>(grads: T, params: T) => T): GradientTransformation<Empty> {
  return { init: () => ({}), update: (grads, state, params) => ({ updates: update(grads, params), state }) };
}

/** Passes gradients on as they are. */
export function identity(): GradientTransformation<Empty> {
  return stateless((grads) => grads);
}

/**
 * Applies transforms one after the other.
 *
 * @example
 * const transform = chain(clipByGlobalNorm(1), scaleByAdam(), scaleByLearningRate(1e-3));
 */
export function chain(
  ...transforms: readonly GradientTransformation[]
): GradientTransformation<readonly TransformState[]> {
  return {
    init: (params) => transforms.map((transform) => transform.init(params)),
    update(grads, states, params) {
      let updates = grads;
      const next = transforms.map((transform, i) => {
        const result = transform.update(updates, states[i]!, params);
        updates = result.updates;
        return result.state;
      });
      return { updates, state: next };
    },
  };
}

/** `factor · g`. */
export function scale(factor: number): GradientTransformation<Empty> {
  checkNumber("scale", "factor", factor, "a finite number", Number.isFinite);
  return stateless((grads) => mapTrees((g) => mul(g, factor), grads));
}

/** `−lr(step) · g`: turns a direction of ascent into an update. Counts its own steps from 0. */
export function scaleByLearningRate(learningRate: ScalarOrSchedule): GradientTransformation<{ count: number }> {
  if (typeof learningRate !== "function") checkNotNegative("scaleByLearningRate", "learningRate", learningRate);
  const schedule = asSchedule(learningRate);
  return {
    init: () => ({ count: 0 }),
    update(grads, { count }) {
      const rate = schedule(count);
      checkNotNegative(`scaleByLearningRate] [step ${count}`, "learningRate", rate);
      return { updates: mapTrees((g) => mul(g, -rate), grads), state: { count: count + 1 } };
    },
  };
}

/** `schedule(step) · g`. Counts its own steps from 0. Unlike `scaleByLearningRate` it keeps the sign. optax's `scale_by_schedule`. */
export function scaleBySchedule(schedule: Schedule): GradientTransformation<{ count: number }> {
  return {
    init: () => ({ count: 0 }),
    update(grads, { count }) {
      const factor = schedule(count);
      checkNumber(`scaleBySchedule] [step ${count}`, "factor", factor, "a finite number", Number.isFinite);
      return { updates: mapTrees((g) => mul(g, factor), grads), state: { count: count + 1 } };
    },
  };
}

/** Updates of 0, for parameters that are to stay as they are. optax's `set_to_zero`. */
export function setToZero(): GradientTransformation<Empty> {
  return stateless((grads) => mapTrees((g) => zerosLike(g), grads));
}

/**
 * Gradient centralization (Yong et al. 2020, arXiv:2004.01461; optax's `centralize`): takes from the gradient of each output unit its mean, `g − mean g` over
 * all axes but the first, of weights stored `[out, in, …]`. Tensors with less than two axes stay.
 */
export function centralize(): GradientTransformation<Empty> {
  const centered = (g: Tensor) => sub(g, mean(g, { axis: g.shape.map((_, axis) => axis).slice(1), keepDims: true }));
  return stateless((grads) => mapTrees((g) => (g.rank < 2 ? g : centered(g)), grads));
}

/** Momentum: `t ← g + decay·t`; passes on `t`, or with `nesterov` `g + decay·t`. */
export function trace(options: { decay: number; nesterov?: boolean }): GradientTransformation<{ trace: TensorTree }> {
  requireOptions("trace", options);
  const { decay, nesterov = false } = options;
  checkBeta("trace", "decay", decay);
  const advance = (g: Tensor, t: Tensor) => add(g, mul(t, decay));
  return {
    init: (params) => ({ trace: zerosOf(params) }),
    update(grads, state) {
      const next = mapTrees(advance, grads, state.trace);
      return { updates: nesterov ? mapTrees(advance, grads, next) : next, state: { trace: next } };
    },
  };
}

/** `g + weightDecay · p`, for the parameters that `mask` chooses (default: all). */
export function addDecayedWeights(weightDecay: number, mask: TreeMask = () => true): GradientTransformation<Empty> {
  checkNotNegative("addDecayedWeights", "weightDecay", weightDecay);
  if (weightDecay === 0) return identity();
  return stateless((grads, params) =>
    mapTrees((g, p, path) => (mask(path, p) ? add(g, mul(p, weightDecay)) : g), grads, params),
  );
}

/** Chooses leaves of a tree by path ("layers.0.weight") or tensor. */
export type TreeMask = (path: string, param: Tensor) => boolean;

/** Multiplies all gradients by `min(1, maxNorm / (norm + 1e-6))`, norm that of all of them together. NaN and infinite norms give NaN. */
export function clipByGlobalNorm(maxNorm: number): GradientTransformation<Empty> {
  checkPositive("clipByGlobalNorm", "maxNorm", maxNorm);
  return stateless((grads) => {
    const norm = globalNorm([...tensorsOf(grads)]);
    const factor = add(minimum(div(maxNorm, add(norm, 1e-6)), 1), mul(norm, 0));
    return mapTrees((g) => mul(g, factor), grads);
  });
}

/** Limits every element to `[−limit, limit]`. */
export function clip(limit: number): GradientTransformation<Empty> {
  checkPositive("clip", "limit", limit);
  return stateless((grads) => mapTrees((g) => clipValues(g, -limit, limit), grads));
}

/** Applies a transform to the leaves that `mask` chooses (by path and parameter); the others pass through. */
export function masked<S extends TransformState>(
  transform: GradientTransformation<S>,
  mask: TreeMask,
): GradientTransformation<S> {
  const chosen = (tree: TensorTree, params: TensorTree): Record<string, Tensor> => {
    const leaves = emptyRecord<Tensor>();
    mapTrees(
      (leaf, param, path) => {
        if (mask(path, param)) leaves[path] = leaf;
        return leaf;
      },
      tree,
      params,
    );
    return leaves;
  };
  return {
    init: (params) => transform.init(chosen(params, params)),
    update(grads, state, params) {
      const inner = transform.update(chosen(grads, params), state, chosen(params, params));
      return { updates: mapTrees((g, path) => own(inner.updates, path) ?? g, grads), state: inner.state };
    },
  };
}

/** The parameters after a step, `p + u`, as new tensors. */
export function applyUpdates<T extends TensorTree>(params: T, updates: T): T {
  return mapTrees((p, u) => add(p, u), params, updates);
}

/** Zeros in the form of a tree. @internal */
export function zerosOf(params: TensorTree): TensorTree {
  return mapTrees((p) => zerosLike(p), params);
}
