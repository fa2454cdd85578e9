/**
 * Any gradient transform behind the interface of an optimizer: groups, schedules, clipping, named state, master weights, typed arrays.
 */
import { OptionError } from "@llmeff/native";
import { add, astype, equal, mul, type Tensor, type TensorTree, where } from "@llmeff/tensor";
import { requireOptions, withDefaults } from "./check.js";
import type { ResolvedGroup } from "./groups.js";
import { BaseOptimizer } from "./optimizer.js";
import type { Bucket, CommonHyper, CommonOptions, MakeState, NewGroup, Slot, StateHolder } from "./optimizer-types.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter, Storage } from "./storage.js";
import type { GradientTransformation, TransformState } from "./transform.js";
import { flattenState, mergeStates, readState, rebuildState, type StateForm } from "./transform-state.js";

/** Hyper-parameters as a step uses them: the schedule is read. */
export type StepHyper<H> = Omit<H, "learningRate"> & { learningRate: number };

/** How an optimizer steps with a gradient transform. */
export interface TransformRule<H extends CommonHyper = CommonHyper> {
  /** Name of the method in saved states: "lamb". */
  readonly kind: string;
  /** Name in messages: "Lamb". Default: that of `kind`. */
  readonly name?: string;
  /** Every hyper-parameter with its default. */
  readonly defaults: H;
  /** Throws an `OptionError` for hyper-parameters outside their domain, but for `learningRate`, which the optimizer checks. */
  readonly check?: (where: string, hyper: H) => void;
  /**
   * The transform for these hyper-parameters. Its updates are added to the parameters, so sign and learning rate are inside. It is made anew
   * for every step, whose learning rate it is given; the state goes from one to the next, and must keep its form, dtypes and shapes.
   */
  readonly transform: (hyper: StepHyper<H>) => GradientTransformation;
  /**
   * `false` (default): every parameter has a transform of its own, so that it may be left out of a step. `true`: one for all parameters of a group, which then
   * get gradients all together or not at all; for transforms that look at several, such as `clipByGlobalNorm`.
   */
  readonly together?: boolean;
  /**
   * `true`: states are as with `together: false`, one for each parameter, and the transform is called once for all parameters of a group that have
   * taken as many steps; for transforms that make batches of parameters of one shape. Everything in their states but numbers must be by path.
   */
  readonly batched?: boolean;
}

/** Options of an optimizer with such hyper-parameters. */
export type TransformOptions<H extends CommonHyper> = Partial<H> & CommonOptions<H>;

/**
 * An optimizer that steps with a gradient transform, on tensors of any device or typed arrays; bfloat16 and float16 parameters have float32
 * masters, which the transform sees in their place. The state arrays are those of the transform, named by their path in its state:
 * `"weight.m"`, or `"weight.1.m"` inside of a chain.
 *
 * With `maxGradNorm` gradients are clipped before the transform sees them, and a step whose gradients are not finite changes no
 * parameter and no state array; the numbers in the state (counts) go on.
 *
 * @example
 * class Lamb<P extends Parameter> extends TransformOptimizer<P, LambHyper> {
 *   constructor(params: Readonly<Record<string, P>>, options: LambOptions = {}) {
 *     super(lambRule, params, options);
 *   }
 * }
 *
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 */
export class TransformOptimizer<P extends Parameter, H extends CommonHyper = CommonHyper> extends BaseOptimizer<P, H> {
  readonly kind: string;
  readonly #rule: TransformRule<H>;
  /** Of each state, by the name of its holder. */
  readonly #forms: Map<string, StateForm>;
  /** The holder of each group's state, if its parameters are stepped together. */
  readonly #groupState = new Map<object, StateHolder<P>>();

  constructor(rule: TransformRule<H>, params: Readonly<Record<string, P>>, options: TransformOptions<H>) {
    const { name = rule.kind, check = () => {}, together = false } = rule;
    const forms = new Map<string, StateForm>();
    const makeState: MakeState<P, H> = (storage, slot, hyper) =>
      together ? { state: {}, numbers: {} } : initialState(forms, rule, storage, slot.name, [slot], hyper);
    super(name, params, withDefaults<H>(rule.defaults, options), options, makeState, check);
    this.kind = rule.kind;
    this.#rule = rule;
    this.#forms = forms;
    if (!together) return;
    if (options.decay !== undefined && options.decay !== "all") {
      throw new OptionError(
        `[${name}] steps all parameters of a group together, which decay of some would part. Use groups, or addDecayedWeights with a mask.`,
      );
    }
    for (const group of this.paramGroups) this.#addShared(group);
  }

  override addParamGroup(group: NewGroup<P, H>): void {
    super.addParamGroup(group);
    if (this.#rule.together) this.#addShared(this.paramGroups.at(-1)!);
  }

  #addShared(group: ResolvedGroup<H>): void {
    const slots = this.slotsOf(group);
    if (slots.length === 0) return;
    const [first, ...others] = slots.map((slot) => slot.name);
    const name = others.length === 0 ? first! : `${first}+${others.length}`;
    const holder = { name, ...initialState(this.#forms, this.#rule, this.storage, name, slots, group) };
    this.sharedState.push(holder);
    this.#groupState.set(group, holder);
  }

  protected override prepareBucket(bucket: Bucket<P, H>): () => void {
    const { hyper, gradFactor } = bucket;
    const transform = transformOf(this.#rule, hyper, bucket.now().learningRate);
    const factor = gradFactor === null ? undefined : this.storage.tensor(gradFactor, [], this.storage.dtype);
    const units = this.#unitsOf(bucket);
    const writers = units.flatMap((unit) => this.#prepare(unit, transform, factor));
    return () => {
      for (const write of writers) write();
    };
  }

  #unitsOf(bucket: Bucket<P, H>): Unit<P>[] {
    const { slots, grads } = bucket;
    if (this.#rule.together) return [this.#together(bucket)];
    if (this.#rule.batched) return [{ holders: slots, slots, grads }];
    return slots.map((slot, i) => ({ holders: [slot], slots: [slot], grads: [grads[i]!] }));
  }

  #together({ slots, grads, group }: Bucket<P, H>): Unit<P> {
    const missing = group.params.find((name) => !slots.some((slot) => slot.name === name));
    if (missing !== undefined) {
      throw new OptionError(
        `[${this.kind}.step] steps all parameters of a group together; the gradient of "${missing}" is missing.`,
      );
    }
    return { holders: [this.#groupState.get(group)!], slots, grads };
  }

  /** Computes the step of the parameters that are stepped together, and returns what writes it to them. */
  #prepare(
    { holders, slots, grads }: Unit<P>,
    transform: GradientTransformation,
    factor: Tensor | undefined,
  ): (() => void)[] {
    const { storage } = this;
    const params = treeOf(storage, slots);
    const held = holders.map((holder) => {
      const form = this.#forms.get(holder.name)!;
      const before = Object.fromEntries(
        Object.entries(form.arrays).map(([key, { shape, dtype }]) => [
          key,
          storage.tensor(holder.state[key]!, shape, dtype),
        ]),
      );
      return { holder, form, before };
    });
    const gradTree = Object.fromEntries(
      slots.map(({ name, shape }, i) => {
        const grad = storage.tensor(grads[i]!, shape, storage.dtype);
        const wide = grad.dtype === storage.dtype ? grad : astype(grad, storage.dtype);
        return [name, factor === undefined ? wide : mul(wide, factor)];
      }),
    );
    const states = held.map(({ holder, form, before }) => rebuildState(form, before, holder.numbers));
    const { updates, state } = transform.update(gradTree, mergeStates(this.kind, states), params);
    // NaN tells that nothing is to be changed; it is the only value that differs from itself.
    const finite = factor === undefined ? undefined : equal(factor, factor);
    const chosen = (next: Tensor, old: Tensor) => (finite === undefined ? next : where(finite, next, old));

    const inputs = new Set<Tensor>([...held.flatMap(({ before }) => Object.values(before)), ...Object.values(params)]);
    const writers = held.flatMap(({ holder, form, before }) => {
      const after = readState(this.kind, holder.name, state, form, held.length > 1);
      const arrays = Object.entries(after.arrays).flatMap(([key, next]) => {
        const old = before[key]!;
        if (next === old) return [];
        const value = chosen(next, old);
        // A state array that moves to another name must be read before that one is written.
        return [storage.writer(holder.state[key]!, inputs.has(value) ? value.clone() : value)];
      });
      return [...arrays, () => Object.assign(holder.numbers, after.numbers)];
    });
    for (const slot of slots) {
      const param = params[slot.name]!;
      const next = chosen(add(param, updates[slot.name]!), param);
      if (slot.state.master !== undefined) writers.push(storage.writer(slot.state.master, next));
      writers.push(storage.writer(slot.param, next));
    }
    return writers;
  }
}

/** The transform for the hyper-parameters of a group, which holds other things too. */
function transformOf<H extends CommonHyper>(
  rule: TransformRule<H>,
  group: H,
  learningRate: number,
): GradientTransformation {
  return rule.transform({ ...withDefaults<H>(rule.defaults, group), learningRate });
}

/** Parameters that a transform steps in one call, and who holds their state or states. */
interface Unit<P> {
  readonly holders: readonly StateHolder<P>[];
  readonly slots: readonly Slot<P>[];
  readonly grads: readonly P[];
}

type Stepped<P> = Pick<Slot<P>, "name" | "param" | "shape"> & { state?: Slot<P>["state"] };

/** What is stepped, by name. */
function treeOf<P extends Parameter>(storage: Storage<P>, slots: readonly Stepped<P>[]): Record<string, Tensor> {
  return Object.fromEntries(
    slots.map(({ name, param, shape, state }) => [name, storage.tensor(state?.master ?? param, shape, storage.dtype)]),
  );
}

/** The state of a transform for some parameters, as arrays of their own. Remembers its form under the name of the holder. */
function initialState<P extends Parameter, H extends CommonHyper>(
  forms: Map<string, StateForm>,
  rule: TransformRule<H>,
  storage: Storage<P>,
  holder: string,
  slots: readonly Stepped<P>[],
  hyper: H,
): { state: Record<string, P>; numbers: Record<string, number> } {
  let state: Record<string, P> = {};
  let numbers: Record<string, number> = {};
  storage.run(() => {
    const params: TensorTree = treeOf(storage, slots);
    const initial: TransformState = transformOf(rule, hyper, 0).init(params);
    const flat = flattenState(holder, initial);
    forms.set(holder, flat.form);
    numbers = flat.numbers;
    state = Object.fromEntries(Object.entries(flat.arrays).map(([key, array]) => [key, storage.own(array)]));
  });
  return { state, numbers };
}

/** Options of `optimizerOf`. */
export interface OptimizerOfOptions extends CommonOptions<CommonHyper>, Partial<CommonHyper> {
  /** Name of the method in saved states and messages. Default "transform". */
  kind?: string;
  /** See `TransformRule`; default `true`, which is right for every transform. */
  together?: boolean;
}

/**
 * An optimizer that steps with a transform of your own.
 *
 * @param transformFor - called for every step with the group's learning rate of that step and weight decay; returns the transform, whose updates are added
 *
 * @example
 * const optimizer = optimizerOf(params, ({ learningRate }) => chain(clip(1), trace({ decay: 0.9 }), scale(-learningRate)), {
 *   learningRate: cosine(0.1, 1000),
 * });
 */
export function optimizerOf<P extends Parameter>(
  params: Readonly<Record<string, P>>,
  transformFor: (hyper: StepHyper<CommonHyper>) => GradientTransformation,
  options: OptimizerOfOptions = {},
): TransformOptimizer<P> {
  requireOptions("optimizerOf", options);
  const { kind = "transform", together = true, ...rest } = options;
  const defaults: { learningRate: ScalarOrSchedule; weightDecay: number } = { learningRate: 1e-3, weightDecay: 0 };
  return new TransformOptimizer({ kind, defaults, transform: transformFor, together }, params, rest);
}
