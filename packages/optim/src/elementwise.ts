/**
 * Optimizers that treat every element alike, on the engine's one kernel for all of them.
 */
import { engine, OptionError, type Scalar, type UpdateRule } from "@llmeff/native";
import { withDefaults } from "./check.js";
import { FusedOptimizer } from "./optimizer.js";
import { type Bucket, type CommonHyper, type CommonOptions, roundings, stepped } from "./optimizer-types.js";
import type { StateDomains } from "./state-values.js";
import type { Parameter, Storage } from "./storage.js";

/** What the kernel computes in one step: the rule, its states by name, and its numbers, in the order of the engine's `update_rules.h`. */
export interface ElementwiseStep<N extends Scalar = number> {
  readonly rule: UpdateRule;
  readonly states: readonly string[];
  readonly factors: readonly N[];
}

/** How an element-wise optimizer steps. */
export interface ElementwiseRule<H extends CommonHyper> {
  /** Name of the method in saved states: "lion". */
  readonly kind: string;
  /** Name in messages: "Lion". */
  readonly name: string;
  /** Every hyper-parameter with its default. */
  readonly defaults: H;
  /** Throws an `OptionError` for hyper-parameters outside their domain, but for `learningRate`, which the optimizer checks. */
  readonly check: (where: string, hyper: H) => void;
  /** The step with 1-based number `step`. Its rule and states must depend on neither that nor the learning rate. */
  readonly step: (hyper: H & { learningRate: number }, step: number) => ElementwiseStep;
  /** What its states, whichever a step has, can be beside finite. */
  readonly stateDomains?: StateDomains;
}

/**
 * An element-wise optimizer: one multi-tensor kernel a step reads every array once and writes it once, and writes the roundings of
 * bfloat16 and float16 parameters on the way.
 */
export abstract class ElementwiseOptimizer<P extends Parameter, H extends CommonHyper> extends FusedOptimizer<P, H> {
  readonly kind: string;
  protected readonly rule: ElementwiseRule<H>;

  protected constructor(
    rule: ElementwiseRule<H>,
    params: Readonly<Record<string, P>>,
    options: Partial<H> & CommonOptions<H>,
  ) {
    const states = (hyper: H) => rule.step({ ...hyper, learningRate: 0 }, 1).states;
    super(rule.name, params, withDefaults<H>(rule.defaults, options), options, states, rule.check);
    this.kind = rule.kind;
    this.rule = rule;
  }

  protected override get stateDomains(): StateDomains {
    return this.rule.stateDomains ?? super.stateDomains;
  }

  protected override prepareBucket(bucket: Bucket<P, H>): () => void {
    const { rule, states } = this.rule.step({ ...bucket.hyper, learningRate: 0 }, 1);
    const factors = bucket.scalars((hyper, step) => this.rule.step(hyper, step).factors);
    return prepareElementwise(this.rule.name, this.storage, bucket, { rule, states, factors });
  }
}

/** Gets the operands of one call of the kernel, and returns the function that makes it. */
export function prepareElementwise<P extends Parameter>(
  where: string,
  { operand }: Storage<P>,
  { slots, grads, gradScale }: Pick<Bucket<P, unknown>, "slots" | "grads" | "gradScale">,
  { rule, states, factors }: ElementwiseStep<Scalar>,
): () => void {
  const arrays = states.flatMap((key) =>
    slots.map(({ name, state }) => {
      const array = state[key];
      if (array !== undefined) return operand(array);
      throw new OptionError(
        `[${where}.step] "${name}" has no state "${key}": what its group does needed none when the optimizer was made. Make a new optimizer.`,
      );
    }),
  );
  return engine().op.optimizerStep.bind(
    null,
    rule,
    slots.map((slot) => operand(stepped(slot))),
    roundings(slots).map(operand),
    grads.map(operand),
    arrays,
    factors,
    gradScale,
  );
}
