/**
 * Schedule-Free AdamW: AdamW whose iterates are averaged as it goes, so that no learning-rate schedule and no number of steps is needed.
 *
 * Three sequences: gradients are taken at `y` (the parameters while training), `z` is AdamW's own iterate, `x` the average, where to evaluate:
 * `lr_t = lr · min(1, t / warmupSteps)`, `lrMax = max(lrMax, lr_t)`, `w = t^r · lrMax^weightLrPower`, `W ← W + w`, `c = w / W`;
 * `v` as in AdamW, `d = g / (√v̂ + eps) + weightDecay·y`; `z ← z − lr_t·d`, `x ← (1 − c)·x + c·z`, `y = (1 − beta1)·z + beta1·x`.
 *
 * Defazio et al. 2024, arXiv:2405.15682; semantics of the authors' code. For runs whose length isn't known; takes learning rates of AdamW or up to ten
 * times larger, and a constant one.
 */
import { OptionError, UpdateRule } from "@llmeff/native";
import { add, div, mul, sqrt, square, sub, type TensorTree } from "@llmeff/tensor";
import { average } from "./adamw.js";
import { checkBeta, checkCount, checkKeys, checkNotNegative, checkNumber, withDefaults } from "./check.js";
import type { DecayMask } from "./decay.js";
import { ElementwiseOptimizer, type ElementwiseRule, prepareElementwise } from "./elementwise.js";
import type { ResolvedGroup } from "./groups.js";
import type { Bucket, CommonOptions, NewGroup } from "./optimizer-types.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import { count, notNegative, zeroOrOne } from "./state-values.js";
import { refuseChange } from "./step-numbers.js";
import type { Parameter } from "./storage.js";
import { type GradientTransformation, zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

/** Hyper-parameters of Schedule-Free AdamW; the defaults are the authors'. */
export interface ScheduleFreeAdamWHyper {
  /** Default 2.5e-3. */
  learningRate: ScalarOrSchedule;
  /** Share of the average in the point of the gradients, in (0, 1). Default 0.9; 0.95 and 0.98 for longer runs. */
  beta1: number;
  /** Decay of the average of the squared gradients. Default 0.999. */
  beta2: number;
  /** Added to the root of the second moment. Default 1e-8. */
  eps: number;
  /** Decoupled, at `y`. Default 0. */
  weightDecay: number;
  /** Steps of linear warm-up. Default 0. */
  warmupSteps: number;
  /** Power of the step's number in the weights of the average. Default 0. */
  r: number;
  /** Power of the largest learning rate so far in the weights of the average. Default 2. */
  weightLrPower: number;
}
export interface ScheduleFreeAdamWOptions
  extends Partial<ScheduleFreeAdamWHyper>,
    CommonOptions<ScheduleFreeAdamWHyper> {}

const scheduleFreeDefaults = {
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  weightDecay: 0,
  warmupSteps: 0,
  r: 0,
  weightLrPower: 2,
} as const;

function checkScheduleFree(where: string, hyper: Omit<ScheduleFreeAdamWHyper, "learningRate">): void {
  checkNumber(where, "beta1", hyper.beta1, "a number in (0, 1)", (x) => x > 0 && x < 1);
  checkBeta(where, "beta2", hyper.beta2);
  checkNotNegative(where, "eps", hyper.eps);
  checkNotNegative(where, "weightDecay", hyper.weightDecay);
  checkCount(where, "warmupSteps", hyper.warmupSteps);
  checkNumber(where, "r", hyper.r, "a finite number", Number.isFinite);
  checkNumber(where, "weightLrPower", hyper.weightLrPower, "a finite number", Number.isFinite);
}

type Stepping = ScheduleFreeAdamWHyper & { learningRate: number };

/** What the average remembers of the steps so far. */
interface Weights {
  steps: number;
  lrMax: number;
  weightSum: number;
}
const noWeights = (): Weights => ({ steps: 0, lrMax: 0, weightSum: 0 });

/** The learning rate and the weight `c` of the next step, and the weights after it. */
function advance(hyper: Stepping, before: Weights): { rate: number; weight: number; after: Weights } {
  const steps = before.steps + 1;
  const rate = hyper.learningRate * Math.min(1, hyper.warmupSteps > 0 ? steps / hyper.warmupSteps : 1);
  const lrMax = Math.max(before.lrMax, rate);
  const share = steps ** hyper.r * lrMax ** hyper.weightLrPower;
  const weightSum = before.weightSum + share;
  // Until a rate is above 0 there is nothing to average.
  return { rate, weight: weightSum > 0 ? share / weightSum : 0, after: { steps, lrMax, weightSum } };
}

function factors(hyper: Stepping, step: number, rate: number, weight: number): readonly number[] {
  const { beta1, beta2, eps, weightDecay } = hyper;
  const rootScale = 1 / Math.sqrt(1 - beta2 ** step);
  const yRate = rate * (1 - beta1 * (1 - weight));
  return [beta2, 1 - beta2, rootScale, eps, weightDecay, 1 - weight, weight, yRate, rate];
}

const scheduleFreeRule: ElementwiseRule<ScheduleFreeAdamWHyper> = {
  kind: "schedule-free-adamw",
  name: "ScheduleFreeAdamW",
  defaults: { learningRate: 2.5e-3, ...scheduleFreeDefaults },
  check: checkScheduleFree,
  step(hyper, step) {
    const { rate, weight } = advance(hyper, noWeights());
    return { rule: UpdateRule.scheduleFree, states: ["z", "v"], factors: factors(hyper, step, rate, weight) };
  },
  stateDomains: {
    notNegative: ["v"],
    numbers: { steps: count, lrMax: notNegative, weightSum: notNegative, training: zeroOrOne },
  },
};

/**
 * Schedule-Free AdamW in one fused kernel: two numbers of state and 28 bytes of memory traffic a float32 parameter.
 *
 * Call `eval()` before the parameters are evaluated or saved, and `train()` before the next step. The switch computes the other point from this
 * one and `z`, so that going there and back may change the last bits of a parameter.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new ScheduleFreeAdamW(params, { learningRate: 2.5e-3, warmupSteps: 1000 });
 * optimizer.step(grads);
 * optimizer.eval();
 * const loss = await evaluate(params);
 * optimizer.train();
 */
export class ScheduleFreeAdamW<P extends Parameter> extends ElementwiseOptimizer<P, ScheduleFreeAdamWHyper> {
  constructor(params: Readonly<Record<string, P>>, options: ScheduleFreeAdamWOptions = {}) {
    super(scheduleFreeRule, params, options);
    for (const group of this.paramGroups) this.#addNumbers(group);
  }

  override addParamGroup(group: NewGroup<P, ScheduleFreeAdamWHyper>): void {
    if (!this.training)
      throw new OptionError("[ScheduleFreeAdamW.addParamGroup] call train() before adding parameters.");
    super.addParamGroup(group);
    this.#addNumbers(this.paramGroups.at(-1)!);
  }

  #addNumbers(group: ResolvedGroup<ScheduleFreeAdamWHyper>): void {
    Object.assign(this.#numbersOf(group), noWeights(), { training: 1 });
  }

  /** What a group remembers, which is kept and saved with its first parameter. */
  #numbersOf(group: ResolvedGroup<ScheduleFreeAdamWHyper>): Record<string, number> {
    return this.slotsOf(group)[0]?.numbers ?? {};
  }

  /** Whether the parameters are `y`, where gradients are taken, and not the average `x`. */
  get training(): boolean {
    return this.paramGroups.every((group) => this.#numbersOf(group).training !== 0);
  }

  /** Puts `y` into the parameters, which is where to take gradients. Does nothing while training. */
  train(): void {
    if (this.training) return;
    this.#move((beta1) => 1 - beta1, 1);
  }

  /** Puts the average `x` into the parameters, which is what to evaluate and to save. Does nothing if it is there. */
  eval(): void {
    if (!this.training) return;
    this.#move((beta1) => 1 - 1 / beta1, 0);
  }

  /** Moves all parameters by `weight` of their way to `z`, where they are for training (1) or evaluation (0). */
  #move(weight: (beta1: number) => number, training: 0 | 1): void {
    refuseChange(training === 1 ? "ScheduleFreeAdamW.train" : "ScheduleFreeAdamW.eval");
    this.storage.run(() => {
      const calls = this.paramGroups.map((group) => {
        const slots = this.slotsOf(group).filter(({ steps }) => steps > 0); // before that all three points are one
        const w = weight(group.beta1);
        // `keep·p − rate·g` of SGD's rule, with z for the gradient.
        const step = { rule: UpdateRule.sgd, states: [], factors: [0, 1 - w, -w] };
        const grads = slots.map(({ state }) => state.z!);
        return prepareElementwise(this.rule.name, this.storage, { slots, grads, gradScale: null }, step);
      });
      for (const call of calls) call();
    });
    for (const group of this.paramGroups) {
      const numbers = this.#numbersOf(group);
      if ("training" in numbers) numbers.training = training;
    }
  }

  override prepareStep(grads: Readonly<Record<string, P>>, factor?: P | null): () => void {
    if (this.training) return super.prepareStep(grads, factor);
    throw new OptionError(
      "[ScheduleFreeAdamW.step] the parameters are the average x, where no gradients are taken; call train() and take them there.",
    );
  }

  protected override prepareBucket(bucket: Bucket<P, ScheduleFreeAdamWHyper>): () => void {
    const { slots, group } = bucket;
    const { learningRate, step } = bucket.now();
    const hyper = { ...bucket.hyper, learningRate };
    const numbers = this.#numbersOf(group);
    const { rate, weight, after } = advance(hyper, numbers as unknown as Weights);
    const call = prepareElementwise(this.rule.name, this.storage, bucket, {
      rule: UpdateRule.scheduleFree,
      states: ["z", "v"],
      factors: factors(hyper, step, rate, weight),
    });
    return () => {
      if (step === 1) for (const { state, param } of slots) this.storage.assign(state.z!, state.master ?? param);
      call();
      Object.assign(numbers, after);
    };
  }
}

export interface ScheduleFreeState extends Readonly<Weights> {
  readonly [key: string]: number | TensorTree;
  readonly z: TensorTree;
  readonly v: TensorTree;
}

/**
 * Schedule-Free AdamW as a transform, learning rate and decay inside. The parameters that it is given and that its updates are for are `y`;
 * `scheduleFreeEvalParams` gives `x`.
 *
 * @example
 * const transform = scheduleFreeAdamw(2.5e-3, { warmupSteps: 1000 });
 */
export function scheduleFreeAdamw(
  learningRate: ScalarOrSchedule,
  options: Partial<Omit<ScheduleFreeAdamWHyper, "learningRate">> & DecayMask = {},
): GradientTransformation<ScheduleFreeState> {
  checkKeys("scheduleFreeAdamw", options, [...Object.keys(scheduleFreeDefaults), "mask"]);
  const hyper = withDefaults<Omit<ScheduleFreeAdamWHyper, "learningRate">>(scheduleFreeDefaults, options);
  checkScheduleFree("scheduleFreeAdamw", hyper);
  const schedule = asSchedule(learningRate);
  const { mask = () => true } = options;
  const { beta1, beta2, eps, weightDecay } = hyper;
  return {
    init: (params) => ({ ...noWeights(), z: mapTrees((p) => p.clone(), params), v: zerosOf(params) }),
    update(grads, state, params) {
      const { rate, weight, after } = advance({ ...hyper, learningRate: schedule(state.steps) }, state);
      const v = mapTrees((g, old) => average(old, square(g), beta2), grads, state.v);
      const directions = mapTrees(
        (g, second, y, path) => {
          const d = div(g, add(sqrt(div(second, 1 - beta2 ** after.steps)), eps));
          return mask(path, y) ? add(d, mul(y, weightDecay)) : d;
        },
        grads,
        v,
        params,
      );
      const yRate = rate * (1 - beta1 * (1 - weight));
      const updates = mapTrees((d, z, y) => sub(mul(sub(z, y), weight), mul(d, yRate)), directions, state.z, params);
      const z = mapTrees((old, d) => sub(old, mul(d, rate)), state.z, directions);
      return { updates, state: { ...after, z, v } };
    },
  };
}

/** The average `x` of Schedule-Free AdamW, where to evaluate, from the parameters `y` and the state: `(y − (1 − beta1)·z) / beta1`. */
export function scheduleFreeEvalParams<T extends TensorTree>(
  params: T,
  state: ScheduleFreeState,
  options: { beta1?: number } = {},
): T {
  checkKeys("scheduleFreeEvalParams", options, ["beta1"]);
  const { beta1 = scheduleFreeDefaults.beta1 } = options;
  checkNumber("scheduleFreeEvalParams", "beta1", beta1, "a number in (0, 1)", (x) => x > 0 && x < 1);
  return mapTrees((y, z) => add(y, mul(sub(z, y), 1 - 1 / beta1)), params, state.z);
}
