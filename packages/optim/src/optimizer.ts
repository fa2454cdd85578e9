/**
 * What all optimizers share: parameter groups, clipping by global norm, step counts and saved state.
 */
import { OptionError, ShapeError } from "@llmeff/native";
import { hostCheck, hostEffect, isCapturing } from "@llmeff/tensor";
import { checkKeys, checkNotNegative, checkNumber, requireOptions, show } from "./check.js";
import { checkGrads } from "./grad-checks.js";
import { GradGuard, knownNorm } from "./grad-guard.js";
import { decayTest, type ResolvedGroup, resolveGroups } from "./groups.js";
import { StepHooks } from "./hooks.js";
import type {
  Bucket,
  CommonHyper,
  CommonOptions,
  HyperSummary,
  MakeState,
  NewGroup,
  Optimizer,
  OptimizerState,
  Slot,
  StateHolder,
  StepOptions,
} from "./optimizer-types.js";
import { type Shapes, shapesOf } from "./parameter-shapes.js";
import { pick } from "./records.js";
import { namedArrays, namedNumbers, prepareLoad } from "./saved-state.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import type { StateDtype } from "./sonew-options.js";
import type { StateDomains } from "./state-values.js";
import { numberSource, refuseChange, requireSameHyper, StepsAhead } from "./step-numbers.js";
import { bytesOf, type Parameter, requireNamed, type Storage, sizeOf, storageOf } from "./storage.js";

const commonKeys = ["groups", "decay", "maxGradNorm", "nonFinite", "shapes"];

export abstract class BaseOptimizer<P extends Parameter, H extends CommonHyper> implements Optimizer<P> {
  /** Name of the method in saved states and messages. */
  abstract readonly kind: string;
  protected readonly storage: Storage<P>;
  /** State that belongs to no parameter alone. */
  protected readonly sharedState: StateHolder<P>[] = [];
  readonly hooks = new StepHooks<P>();
  /** @internal */
  readonly guard: GradGuard<P>;
  readonly #where: string;
  readonly #defaults: H;
  readonly #makeState: MakeState<P, H>;
  readonly #check: (where: string, hyper: H) => void;
  readonly #decay: NonNullable<CommonOptions<H>["decay"]>;
  readonly #groups: ResolvedGroup<H>[] = [];
  #params: Readonly<Record<string, P>> = {};
  readonly #slots = new Map<string, Slot<P>>();
  readonly #groupOf = new Map<string, ResolvedGroup<H>>();
  readonly #frozen = new Set<string>();
  #learningRate: ScalarOrSchedule;
  readonly #ahead = new StepsAhead();
  #stepCount = 0;

  /** `hyper` holds every hyper-parameter with its default; `makeState` makes what is kept of a parameter in a group with such hyper-parameters. */
  protected constructor(
    where: string,
    params: Readonly<Record<string, P>>,
    hyper: H,
    options: CommonOptions<H>,
    makeState: MakeState<P, H>,
    check: (where: string, hyper: H) => void,
  ) {
    checkKeys(where, options, [...Object.keys(hyper), ...commonKeys]);
    const { groups = [], decay = "all", shapes = {} } = options;
    this.#where = where;
    this.#defaults = hyper;
    this.#makeState = makeState;
    this.#check = check;
    this.#decay = decay;
    this.#learningRate = hyper.learningRate;
    this.storage = storageOf(where, params);
    this.guard = new GradGuard(where, this.storage, options);
    this.#add(where, params, shapes, groups);
  }

  /** The parameters by name. */
  get params(): Readonly<Record<string, P>> {
    return this.#params;
  }

  /** Groups in the order given, then the group of all other parameters, then those added later. */
  get paramGroups(): readonly ResolvedGroup<H>[] {
    return this.#groups;
  }

  /**
   * Adds parameters that join the training later, such as a new head, as a group of their own. Their steps count from here, so that bias corrections
   * are those of new parameters; the schedule is where the others are.
   *
   * @throws {OptionError} for a name or memory that the optimizer has already; nothing is added then
   */
  addParamGroup(added: NewGroup<P, H>): void {
    const where = `${this.#where}.addParamGroup`;
    refuseChange(where);
    requireOptions(where, added);
    const { params, shapes = {}, ...hyper } = added;
    requireNamed(where, "parameters", params);
    const taken = Object.keys(params).find((name) => Object.hasOwn(this.#params, name));
    if (taken !== undefined) throw new OptionError(`[${where}] there is a parameter "${taken}" already.`);
    storageOf(where, { ...params, ...this.#params });
    const group = { ...hyper, params: Object.keys(params) } as unknown as ResolvedGroup<H>;
    this.#add(where, params, shapes, [group]);
    this.#groups.pop(); // the group of those that no group chose
  }

  /** Adds parameters in groups and one more group for the others, after checking all of them. */
  #add(
    where: string,
    params: Readonly<Record<string, P>>,
    shapes: Shapes,
    groups: NonNullable<CommonOptions<H>["groups"]>,
  ): void {
    const shapeOf = shapesOf(where, params, shapes);
    for (const [name, param] of Object.entries(params)) requireSteppable(where, name, param, shapeOf.get(name)!);
    const decays = decayTest(where, this.#decay, params, shapes, this.#params);
    if (!Array.isArray(groups)) throw new OptionError(`[${where}] groups must be an array; received ${show(groups)}.`);
    for (const [i, group] of groups.entries()) {
      checkKeys(`${where}] [groups[${i}]`, group, ["params", "frozen", ...Object.keys(this.#defaults)]);
    }
    const resolved = resolveGroups(where, shapeOf, this.#defaults, groups, (at, group) => this.#checkHyper(at, group));
    // All state is made before any is added: what fails until then adds nothing.
    const made = resolved.map((group) => ({
      group,
      slots: (group.frozen ? [] : group.params).map((name) =>
        this.#makeSlot(name, params[name]!, shapeOf.get(name)!, group, decays(name, shapeOf.get(name)!)),
      ),
    }));
    for (const [i, { group, slots }] of made.entries()) {
      if (groups[i]?.learningRate === undefined) this.#follow(group);
      this.#groups.push(group);
      for (const slot of slots) {
        this.#slots.set(slot.name, slot);
        this.#groupOf.set(slot.name, group);
      }
      if (group.frozen) for (const name of group.params) this.#frozen.add(name);
      this.#params = { ...this.#params, ...pick(params, group.params) };
    }
  }

  /** Makes a group without a learning rate of its own follow the optimizer's, also when that is changed later. */
  #follow(group: ResolvedGroup<H>): void {
    Object.defineProperty(group, "learningRate", {
      get: () => this.#learningRate,
      set: (value: ScalarOrSchedule) =>
        Object.defineProperty(group, "learningRate", { value, writable: true, enumerable: true }),
      enumerable: true,
      configurable: true,
    });
  }

  #makeSlot(name: string, param: P, shape: readonly number[], group: ResolvedGroup<H>, decays: boolean): Slot<P> {
    const master = this.storage.master(param);
    const { state, numbers } = this.#makeState(this.storage, { name, param: master ?? param, shape }, group);
    if (master !== undefined) state.master = master;
    return { name, param, shape, state, numbers, sizes: sizesOf(state), decays, steps: 0 };
  }

  #checkHyper(where: string, hyper: H): void {
    checkLearningRate(where, hyper.learningRate);
    checkNotNegative(where, "weightDecay", hyper.weightDecay);
    this.#check(where, hyper);
  }

  /** The parameters of a group; none of a frozen one. */
  protected slotsOf(group: ResolvedGroup<H>): Slot<P>[] {
    return group.params.flatMap((name) => this.#slots.get(name) ?? []);
  }

  get stepCount(): number {
    return this.#stepCount;
  }

  get learningRate(): number {
    return this.#learningRateAt(this.#learningRate, this.#stepCount);
  }
  set learningRate(value: ScalarOrSchedule) {
    checkLearningRate(this.#where, value);
    this.#learningRate = value;
  }

  step(grads: Readonly<Record<string, P>>, options: StepOptions = {}): void {
    this.guard.throwFailure();
    const gradNorm = knownNorm(this.#where, options);
    const known = this.hooks.seesGrads ? undefined : gradNorm;
    const chosen = this.hooks.before(`${this.#where}.step`, grads);
    this.storage.run(() => this.prepareStep(chosen, undefined, known)());
    this.hooks.after();
  }

  /** Checks the gradients of a step, and returns the names of those that it uses. @internal */
  checkStep(grads: Readonly<Record<string, P>>): string[] {
    return checkGrads(`${this.#where}.step`, this.#slots, this.#frozen, grads);
  }

  /**
   * Checks a step and gets all that it needs, and returns the function that takes it. Call both inside of one `run` of the storage. `factor` is that of
   * a guard which measured these gradients and others, `known` the norm of these. @internal
   */
  prepareStep(grads: Readonly<Record<string, P>>, factor?: P | null, known?: number): () => void {
    const names = this.checkStep(grads);
    hostCheck(() => this.#checkGroups());
    requireSameHyper(this.#where, this.#groups);
    const rates = new Map(this.#groups.map((group) => [group, this.#rateOf(group)]));
    const dense = new Map(names.map((name) => [name, this.storage.contiguous(grads[name]!)]));
    const norm = names.length === Object.keys(grads).length ? known : undefined;
    const gradFactor =
      factor === undefined ? this.guard.factor([...dense.values()], () => this.#stepCount, norm) : factor;
    const buckets = this.#buckets(dense, rates, gradFactor);
    // All operands are there before the first kernel is called: what fails until then fails the whole step.
    const kernels = buckets.map((bucket) => this.prepareBucket(bucket));
    return () => {
      for (const call of kernels) call();
      const slots = buckets.flatMap((bucket) => bucket.slots);
      this.#ahead.count(slots);
      hostEffect(() => {
        for (const slot of slots) slot.steps++;
        this.#stepCount++;
      });
    };
  }

  #checkGroups(): void {
    for (const [i, group] of this.#groups.entries()) this.#checkHyper(`${this.#where}.step] [paramGroups[${i}]`, group);
  }

  /** Gets the operands of a bucket's kernel, and returns the function that calls it. */
  protected abstract prepareBucket(bucket: Bucket<P, H>): () => void;

  async gradNorm(): Promise<number | undefined> {
    return this.guard.norm();
  }

  async settled(): Promise<void> {
    await this.guard.settled();
  }

  stateDict(): OptimizerState<P> {
    const slots = [...this.#slots.values()];
    const holders = [...slots, ...this.sharedState];
    const numbers = namedNumbers(holders);
    return {
      tensors: namedArrays(holders),
      meta: {
        optimizer: this.kind,
        format: 1,
        stepCount: this.#stepCount,
        steps: Object.fromEntries(slots.map((slot) => [slot.name, slot.steps])),
        ...(Object.keys(numbers).length > 0 ? { numbers } : {}),
        hyper: this.#hyper(),
      },
    };
  }

  loadStateDict(saved: OptimizerState<P>): void {
    refuseChange(`${this.#where}.loadStateDict`);
    this.prepareLoad(`${this.#where}.loadStateDict`, saved)();
  }

  /** What a saved state must be beside finite. */
  protected get stateDomains(): StateDomains {
    return {};
  }

  /** Checks a saved state, and returns the function that loads it. @internal */
  prepareLoad(where: string, saved: OptimizerState<P>): () => void {
    const slots = [...this.#slots.values()];
    const load = prepareLoad(where, this.kind, this.storage, slots, this.sharedState, this.stateDomains, saved);
    return () => {
      load();
      this.#stepCount = saved.meta.stepCount;
    };
  }

  /** All that decides a step beside the learning rate, as JSON: no infinite numbers, no undefined. */
  #hyper(): HyperSummary {
    const groups = this.#groups.map(({ learningRate: _, ...hyper }) =>
      Object.fromEntries(
        Object.entries(hyper).filter(([, value]) => value !== undefined && typeof value !== "function"),
      ),
    ) as HyperSummary["groups"];
    const decaying = () => [...this.#slots.values()].filter(({ decays }) => decays).map(({ name }) => name);
    return {
      decay: this.#decay === "all" || this.#decay === "matrices" ? this.#decay : decaying(),
      ...this.guard.summary(),
      groups,
    };
  }

  stateBytes(): number {
    return Object.values(this.stateDict().tensors).reduce((bytes, array) => bytes + bytesOf(array), 0);
  }

  dispose(): void {
    for (const array of Object.values(this.stateDict().tensors)) this.storage.dispose(array);
    this.guard.dispose();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }

  #buckets(
    grads: ReadonlyMap<string, P>,
    rates: ReadonlyMap<ResolvedGroup<H>, () => number>,
    gradFactor: P | null,
  ): Bucket<P, H>[] {
    const buckets = new Map<string, Pick<Bucket<P, H>, "hyper" | "group"> & { slots: Slot<P>[]; grads: P[] }>();
    for (const [name, grad] of grads) {
      const slot = this.#slots.get(name)!;
      const group = this.#groupOf.get(name)!;
      const { decays } = slot;
      const key = `${this.#groups.indexOf(group)}/${slot.steps + this.#ahead.of(slot)}/${decays}`;
      let bucket = buckets.get(key);
      if (!bucket) {
        bucket = { slots: [], grads: [], group, hyper: { ...group, weightDecay: decays ? group.weightDecay : 0 } };
        buckets.set(key, bucket);
      }
      bucket.slots.push(slot);
      bucket.grads.push(grad);
    }
    const gradScale = gradFactor === null ? null : this.storage.operand(gradFactor);
    return [...buckets.values()].map((bucket) => {
      const rate = rates.get(bucket.group)!;
      const step = this.#ahead.next(this.#where, bucket.slots);
      const numbers = numberSource(this.#where, bucket.hyper, () => ({ learningRate: rate(), step: step() }));
      return { ...bucket, ...numbers, gradFactor, gradScale };
    });
  }

  /** The learning rate of a group in the step that is prepared: known now, but in a captured step, where every replay has its own. */
  #rateOf(group: ResolvedGroup<H>): () => number {
    const ahead = this.#ahead.steps;
    const rate = () => this.#learningRateAt(group.learningRate, this.#stepCount + ahead);
    const now = rate();
    return isCapturing() ? rate : () => now;
  }

  #learningRateAt(value: ScalarOrSchedule, step: number): number {
    const rate = asSchedule(value)(step);
    checkLearningRate(`${this.#where}] [step ${step}`, rate);
    return rate;
  }
}

/** Base of the optimizers on one fused kernel, whose state arrays all have the shape of their parameter and start at 0. */
export abstract class FusedOptimizer<P extends Parameter, H extends CommonHyper> extends BaseOptimizer<P, H> {
  /** `stateNames` says which arrays a parameter of a group needs, `stateDtype` what they are stored in, by default what parameters are stepped in. */
  protected constructor(
    where: string,
    params: Readonly<Record<string, P>>,
    hyper: H,
    options: CommonOptions<H>,
    stateNames: (hyper: H) => readonly string[],
    check: (where: string, hyper: H) => void,
    stateDtype: (hyper: H, shape: readonly number[]) => StateDtype | undefined = () => undefined,
  ) {
    const makeState: MakeState<P, H> = (storage, { shape }, group) => {
      const dtype = stateDtype(group, shape) ?? storage.dtype;
      storage.checkStateDtype(where, dtype);
      const state = Object.fromEntries(stateNames(group).map((key) => [key, storage.zeros(shape, dtype)]));
      return { state, numbers: {} };
    };
    super(where, params, hyper, options, makeState, check);
  }
}

/** @internal */
export function checkLearningRate(where: string, value: ScalarOrSchedule): void {
  if (typeof value === "function") return;
  checkNumber(
    where,
    "learningRate",
    value,
    "a schedule or a number of at least 0",
    (x) => x >= 0 && Number.isFinite(x),
  );
}

function requireSteppable(where: string, name: string, param: Parameter, shape: readonly number[]): void {
  if (shape.includes(0)) {
    throw new ShapeError(`[${where}] parameter "${name}" is empty: shape [${shape.join(", ")}].`);
  }
  if ("isContiguous" in param && !param.isContiguous) {
    throw new ShapeError(
      `[${where}] parameter "${name}" is a strided view; optimizers step contiguous tensors. Use clone().`,
    );
  }
}

function sizesOf(state: Readonly<Record<string, Parameter>>): Record<string, number> {
  return Object.fromEntries(Object.entries(state).map(([key, array]) => [key, sizeOf(array)]));
}
