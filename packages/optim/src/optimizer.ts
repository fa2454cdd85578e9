/**
 * What all fused optimizers share: parameter groups, clipping by global norm, step counts and saved state.
 */
import {
  DeviceError,
  DTypeError,
  FormatError,
  type Operand,
  OptionError,
  type Scalar,
  ShapeError,
} from "@llmeff/native";
import { currentRecording, hostEffect, hostNumber, isCapturing, scalarOf } from "@llmeff/tensor";
import { checkKeys, checkNumber } from "./check.js";
import { preview, type ResolvedGroup, resolveGroups } from "./groups.js";
import type {
  Bucket,
  CommonHyper,
  CommonOptions,
  HyperSummary,
  Optimizer,
  OptimizerState,
  Slot,
} from "./optimizer-types.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import { describe, deviceOf, type Parameter, type Storage, shapeOfParameter, sizeOf, storageOf } from "./storage.js";

const commonKeys = ["groups", "decay", "maxGradNorm", "shapes"];

export abstract class FusedOptimizer<P extends Parameter, H extends CommonHyper> implements Optimizer<P> {
  /** Name of the method in saved states and messages. */
  abstract readonly kind: string;
  readonly paramGroups: readonly ResolvedGroup<H>[];
  protected readonly storage: Storage<P>;
  readonly #where: string;
  readonly #slots = new Map<string, Slot<P>>();
  readonly #groupOf = new Map<string, ResolvedGroup<H>>();
  readonly #decaysAll: boolean;
  readonly #maxGradNorm: number | undefined;
  #learningRate: ScalarOrSchedule;
  #gradNorm: P | undefined;
  #stepCount = 0;
  /** Steps that the capture under way has taken so far: in its replays each of them has a learning rate and a count of its own. */
  #captured: { recording: unknown; steps: number } = { recording: undefined, steps: 0 };

  /** `hyper` holds every hyper-parameter with its default; `stateNames` says which arrays a parameter of a group needs. */
  protected constructor(
    where: string,
    params: Readonly<Record<string, P>>,
    hyper: H,
    options: CommonOptions<H>,
    stateNames: (hyper: H) => readonly string[],
    check: (where: string, hyper: H) => void,
  ) {
    const { groups = [], decay = "all", maxGradNorm, shapes = {} } = options;
    checkKeys(where, options, [...Object.keys(hyper), ...commonKeys]);
    if (decay !== "all" && decay !== "matrices") {
      throw new OptionError(`[${where}] decay must be "all" or "matrices"; received ${String(decay)}.`);
    }
    if (maxGradNorm !== undefined) checkNumber(where, "maxGradNorm", maxGradNorm, "a positive number", (x) => x > 0);
    this.#where = where;
    this.#decaysAll = decay === "all";
    this.#maxGradNorm = maxGradNorm;
    this.#learningRate = hyper.learningRate;
    this.storage = storageOf(where, params);
    const shapeOf = new Map(
      Object.entries(params).map(([name, value]) => [name, shapeOfParameter(where, name, value, shapes[name])]),
    );
    const shapeless = Object.keys(params).find((name) => !shapes[name] && !("rank" in params[name]!));
    if (decay === "matrices" && shapeless !== undefined) {
      throw new OptionError(
        `[${where}] decay "matrices" needs to know which typed arrays are matrices; give shapes: { "${shapeless}": [rows, columns], … }.`,
      );
    }
    for (const group of groups) checkKeys(`${where}] [groups`, group, ["params", ...Object.keys(hyper)]);
    this.paramGroups = resolveGroups(where, shapeOf, hyper, groups, (at, resolved) => {
      checkLearningRate(at, resolved.learningRate);
      check(at, resolved);
    });
    // A group without a learning rate of its own follows the optimizer's, also when that is changed later.
    for (const [i, group] of this.paramGroups.entries()) {
      if (groups[i]?.learningRate === undefined) {
        Object.defineProperty(group, "learningRate", {
          get: () => this.#learningRate,
          set: (value: ScalarOrSchedule) =>
            Object.defineProperty(group, "learningRate", { value, writable: true, enumerable: true }),
          enumerable: true,
          configurable: true,
        });
      }
      for (const name of group.params) this.#addSlot(name, params[name]!, shapeOf.get(name)!, group, stateNames(group));
    }
  }

  #addSlot(name: string, param: P, shape: readonly number[], group: ResolvedGroup<H>, states: readonly string[]): void {
    const elements = shape.reduce((size, n) => size * n, 1);
    if (elements === 0)
      throw new ShapeError(`[${this.#where}] parameter "${name}" is empty: shape [${shape.join(", ")}].`);
    if ("isContiguous" in param && !param.isContiguous) {
      throw new ShapeError(
        `[${this.#where}] parameter "${name}" is a strided view; optimizers step contiguous tensors. Use clone().`,
      );
    }
    const master = this.storage.master(param);
    const state = Object.fromEntries(states.map((key) => [key, this.storage.zeros(shape)]));
    if (master !== undefined) state.master = master;
    this.#slots.set(name, { name, param, shape, state, steps: 0 });
    this.#groupOf.set(name, group);
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

  step(grads: Readonly<Record<string, P>>): void {
    const names = this.#checkGrads(grads);
    const ahead = this.#stepsAhead();
    const rates = new Map(this.paramGroups.map((group) => [group, this.#rateOf(group, ahead)]));
    if (!isCapturing()) this.#setNorm(undefined);
    this.storage.run(() => {
      const dense = new Map(names.map((name) => [name, this.storage.contiguous(grads[name]!)]));
      const { gradScale, norm } = this.#clip([...dense.values()]);
      const buckets = this.#buckets(dense, rates, gradScale, ahead);
      // All operands are there before the first kernel is called: what fails until then fails the whole step.
      const kernels = buckets.map((bucket) => this.prepareBucket(bucket));
      for (const call of kernels) call();
      const measured = norm && this.storage.alias(norm);
      hostEffect(
        () => {
          for (const { slots } of buckets) for (const slot of slots) slot.steps++;
          this.#stepCount++;
          this.#setNorm(measured && this.storage.alias(measured));
        },
        () => measured && this.storage.dispose(measured),
      );
    });
    if (isCapturing()) this.#captured.steps++;
  }

  #setNorm(norm: P | undefined): void {
    if (this.#gradNorm) this.storage.dispose(this.#gradNorm);
    this.#gradNorm = norm;
  }

  /** Steps that a replay of the capture under way will have taken before this one; outside of captures 0. */
  #stepsAhead(): number {
    const recording = currentRecording();
    if (this.#captured.recording !== recording) this.#captured = { recording, steps: 0 };
    return this.#captured.steps;
  }

  /** Gets the operands of a bucket's kernel, and returns the function that calls it. */
  protected abstract prepareBucket(bucket: Bucket<P, H>): () => void;

  async gradNorm(): Promise<number | undefined> {
    return this.#gradNorm === undefined ? undefined : this.storage.read(this.#gradNorm);
  }

  stateDict(): OptimizerState<P> {
    const slots = [...this.#slots.values()];
    return {
      tensors: Object.fromEntries(
        slots.flatMap((slot) => Object.entries(slot.state).map(([key, array]) => [`${slot.name}.${key}`, array])),
      ),
      meta: {
        optimizer: this.kind,
        format: 1,
        stepCount: this.#stepCount,
        steps: Object.fromEntries(slots.map((slot) => [slot.name, slot.steps])),
        hyper: this.#hyper(),
      },
    };
  }

  loadStateDict(saved: OptimizerState<P>): void {
    const where = `${this.#where}.loadStateDict`;
    const { tensors, meta } = saved;
    if (meta?.format !== 1 || meta.optimizer !== this.kind) {
      throw new FormatError(
        `[${where}] expected the state of ${this.kind}, format 1; received ${String(meta?.optimizer)}, format ${String(meta?.format)}.`,
      );
    }
    const own = this.stateDict();
    checkNumber(where, "meta.stepCount", meta.stepCount, "a non-negative integer", isCount);
    for (const [name, array] of Object.entries(own.tensors)) {
      const other = tensors[name];
      if (other === undefined) {
        throw new FormatError(`[${where}] "${name}" is missing. The state has ${preview(Object.keys(tensors))}.`);
      }
      if (describe(other) !== describe(array) || sizeOf(other) !== sizeOf(array)) {
        throw new FormatError(
          `[${where}] "${name}" must be a ${describe(array)} of ${sizeOf(array)} elements; received a ${describe(other)} of ${sizeOf(other)}.`,
        );
      }
    }
    const unknown = Object.keys(tensors).filter((name) => !(name in own.tensors));
    if (unknown.length > 0)
      throw new FormatError(`[${where}] no parameter uses ${preview(unknown)}. Is this another model's state?`);
    for (const name of this.#slots.keys())
      checkNumber(where, `meta.steps["${name}"]`, meta.steps[name], "a non-negative integer", isCount);
    for (const [name, array] of Object.entries(own.tensors)) this.storage.assign(array, tensors[name]!);
    for (const slot of this.#slots.values()) slot.steps = meta.steps[slot.name]!;
    this.#stepCount = meta.stepCount;
  }

  /** All that decides a step beside the learning rate, as JSON: no infinite numbers, no undefined. */
  #hyper(): HyperSummary {
    const groups = this.paramGroups.map(({ learningRate: _, ...hyper }) =>
      Object.fromEntries(Object.entries(hyper).filter(([, value]) => value !== undefined)),
    ) as HyperSummary["groups"];
    const norm = this.#maxGradNorm;
    return {
      decay: this.#decaysAll ? "all" : "matrices",
      ...(norm === undefined ? {} : { maxGradNorm: Number.isFinite(norm) ? norm : "Infinity" }),
      groups,
    };
  }

  stateBytes(): number {
    const itemSize = this.storage.dtype === "float32" ? 4 : 8;
    return Object.values(this.stateDict().tensors).reduce((bytes, array) => bytes + itemSize * sizeOf(array), 0);
  }

  dispose(): void {
    for (const array of Object.values(this.stateDict().tensors)) this.storage.dispose(array);
    this.#setNorm(undefined);
  }
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Names with a gradient, in the order of the parameters, after checking that gradient, parameter and state are what they were made for. */
  #checkGrads(grads: Readonly<Record<string, P>>): string[] {
    const where = `${this.#where}.step`;
    const names = Object.keys(grads);
    for (const name of names) {
      const slot = this.#slots.get(name);
      const grad: unknown = grads[name];
      if (grad === undefined) continue;
      if (!slot) {
        throw new OptionError(
          `[${where}] there is no parameter "${name}". Parameters: ${preview([...this.#slots.keys()])}.`,
        );
      }
      if (describe(grad) !== describe(slot.param)) {
        throw new DTypeError(
          `[${where}] the gradient of "${name}" must be a ${describe(slot.param)}; received ${describe(grad)}.`,
        );
      }
      if (deviceOf(grad as P) !== deviceOf(slot.param)) {
        throw new DeviceError(
          `[${where}] the gradient of "${name}" must be on ${deviceOf(slot.param)}, where the parameter is; received one on ${deviceOf(grad as P)}.`,
        );
      }
      requirePresent(where, slot);
      const got = shapeOfParameter(where, name, grad as P);
      const want = shapeOfParameter(where, name, slot.param);
      if (got.length !== want.length || got.some((n, axis) => n !== want[axis])) {
        throw new ShapeError(
          `[${where}] the gradient of "${name}" must have shape [${want.join(", ")}]; received [${got.join(", ")}].`,
        );
      }
    }
    return [...this.#slots.keys()].filter((name) => grads[name] !== undefined);
  }

  #clip(grads: readonly P[]): { gradScale: Operand | null; norm: P | undefined } {
    if (this.#maxGradNorm === undefined || grads.length === 0) return { gradScale: null, norm: undefined };
    const norm = this.storage.globalNorm(grads);
    return { gradScale: this.storage.operand(this.storage.clipScale(norm, this.#maxGradNorm)), norm };
  }

  #buckets(
    grads: ReadonlyMap<string, P>,
    rates: ReadonlyMap<ResolvedGroup<H>, Scalar>,
    gradScale: Operand | null,
    ahead: number,
  ): Bucket<P, H>[] {
    const buckets = new Map<string, Omit<Bucket<P, H>, "gradScale"> & { slots: Slot<P>[]; grads: P[] }>();
    for (const [name, grad] of grads) {
      const slot = this.#slots.get(name)!;
      const group = this.#groupOf.get(name)!;
      const decays = this.#decaysAll || slot.shape.length >= 2;
      const key = `${this.paramGroups.indexOf(group)}/${slot.steps}/${decays}`;
      const bucket = buckets.get(key);
      if (bucket) {
        bucket.slots.push(slot);
        bucket.grads.push(grad);
        continue;
      }
      const slots = [slot];
      buckets.set(key, {
        slots,
        grads: [grad],
        hyper: { ...group, weightDecay: decays ? group.weightDecay : 0 },
        learningRate: rates.get(group)!,
        step: scalarOf(
          this.#where,
          hostNumber(() => this.#commonSteps(slots) + ahead + 1),
        ),
      });
    }
    return [...buckets.values()].map((bucket) => ({ ...bucket, gradScale }));
  }

  /** Of slots that were at one step when they came together; in a captured step, at every replay. */
  #commonSteps(slots: readonly Slot<P>[]): number {
    const other = slots.find(({ steps }) => steps !== slots[0]!.steps);
    if (other === undefined) return slots[0]!.steps;
    throw new OptionError(
      `[${this.#where}.step] "${slots[0]!.name}" has taken ${slots[0]!.steps} steps and "${other.name}" ${other.steps}; they were captured at one step. Capture the step again.`,
    );
  }

  #rateOf(group: ResolvedGroup<H>, ahead: number): Scalar {
    return scalarOf(
      this.#where,
      hostNumber(() => this.#learningRateAt(group.learningRate, this.#stepCount + ahead)),
    );
  }

  #learningRateAt(value: ScalarOrSchedule, step: number): number {
    const rate = asSchedule(value)(step);
    checkLearningRate(`${this.#where}] [step ${step}`, rate);
    return rate;
  }
}

function checkLearningRate(where: string, value: ScalarOrSchedule): void {
  if (typeof value === "function") return;
  checkNumber(
    where,
    "learningRate",
    value,
    "a schedule or a number of at least 0",
    (x) => x >= 0 && Number.isFinite(x),
  );
}

/** A typed array loses its elements when its buffer is transferred, and may grow or shrink with it. */
function requirePresent(where: string, { name, param, shape, state }: Slot<Parameter>): void {
  const size = shape.reduce((product, n) => product * n, 1);
  for (const [what, array] of [["parameter", param] as const, ...Object.entries(state)]) {
    if (sizeOf(array) === size) continue;
    const which = array === param ? `parameter "${name}"` : `state "${name}.${what}"`;
    throw new ShapeError(
      `[${where}] ${which} had ${size} elements when the optimizer was made and now has ${sizeOf(array)}. ` +
        "Was its buffer transferred or resized? Make a new optimizer.",
    );
  }
}

const isCount = (x: number) => Number.isSafeInteger(x) && x >= 0;
