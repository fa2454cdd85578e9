/**
 * The two kinds of weight decay, as the element-wise kernels and the transforms take them.
 */
import { mul, sub, type TensorTree } from "@llmeff/tensor";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import {
  addDecayedWeights,
  chain,
  type GradientTransformation,
  scaleByLearningRate,
  type TransformState,
  type TreeMask,
} from "./transform.js";
import { mapTrees } from "./trees.js";

export interface DecayHyper {
  /** Share of a parameter that decays, times the learning rate, in a step. */
  weightDecay: number;
  /** `true`: decay apart from the gradient (Loshchilov & Hutter 2019). `false`: `weightDecay · p` is added to the gradient (L2). */
  decoupled: boolean;
}

/** Chooses what decays, in the ready-made transforms. */
export interface DecayMask {
  /** Chooses the parameters that decay, by path and tensor; default all. Usual: `(path, p) => p.rank >= 2`. */
  mask?: TreeMask | undefined;
}

/** What a kernel adds to the gradient, as a multiple of the parameter, and what it multiplies the parameter by. */
export function decayFactors(learningRate: number, { weightDecay, decoupled }: DecayHyper): [l2: number, keep: number] {
  return decoupled ? [0, 1 - learningRate * weightDecay] : [weightDecay, 1];
}

/** A direction of ascent as an optimizer with decay: L2 decay goes into the direction, decoupled decay beside it. */
export function withDecay(
  direction: GradientTransformation,
  { weightDecay, decoupled, mask }: DecayHyper & DecayMask,
  learningRate: ScalarOrSchedule,
): GradientTransformation<readonly TransformState[]> {
  const decay = addDecayedWeights(weightDecay, mask);
  const rate = scaleByLearningRate(asSchedule(learningRate));
  return decoupled ? chain(direction, decay, rate) : chain(decay, direction, rate);
}

/** Updates with `−share · p` beside them: decay that no scaling of the step touches. */
export function decayed<T extends TensorTree>(updates: T, params: T, share: number, mask: TreeMask = () => true): T {
  if (share === 0) return updates;
  return mapTrees((u, p, path) => (mask(path, p) ? sub(u, mul(p, share)) : u), updates, params);
}
