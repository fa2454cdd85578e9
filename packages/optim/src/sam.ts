/**
 * Sharpness-aware minimization: the gradient of the step is taken a little uphill, where the loss is worst nearby.
 *
 * `e = rho · g / ‖g‖`, or `adaptive` `e = rho · p²∘g / ‖|p|∘g‖`, the norms over all parameters; then the base optimizer steps from `p` with
 * the gradient at `p + e`.
 *
 * Foret et al. 2021, arXiv:2010.01412; Kwon et al. 2021, arXiv:2102.11600 (adaptive). Two gradients a step, for better generalization
 * where data is little and passes over it are many (vision, fine-tuning); `rho` 0.05, or 0.5 to 2 when adaptive.
 */
import { OptionError, ShapeError } from "@llmeff/native";
import { abs, add, astype, div, globalNorm, isFinite as isFiniteNumber, mul, type Tensor, where } from "@llmeff/tensor";
import { checkBoolean, checkKeys, checkPositive, refusePromise, show } from "./check.js";
import type { Optimizer } from "./optimizer-types.js";
import { own } from "./records.js";
import { refuseChange } from "./step-numbers.js";
import { type Parameter, portrait, requireNamed, type Storage, sizeOf, storageOf } from "./storage.js";

export interface SAMOptions {
  /** Length of the way uphill. Default 0.05. */
  rho?: number;
  /** Scales it to each parameter's size, so that rescaled weights are treated alike. Default `false`. */
  adaptive?: boolean;
}

type Named<P> = Readonly<Record<string, P>>;

/** An optimizer that tells its parameters, as all of this package do. */
export type Steppable<P extends Parameter> = Optimizer<P> & { readonly params: Named<P> };

/**
 * Makes an optimizer sharpness-aware. Learning rate, groups, clipping and state are the base optimizer's: change, save and load that one.
 *
 * Gradients that aren't finite lead nowhere uphill: the parameters stay, and the base optimizer's own guard decides on the step.
 *
 * @throws {OptionError} for a rho that isn't positive, an unknown option, and calls out of turn
 *
 * @example
 * const sam = new SAM(new SGD(params, { learningRate: 0.1, momentum: 0.9 }), { rho: 0.05 });
 * const { value } = sam.step(() => valueAndGrad(loss, params)); // called twice
 *
 * @example
 * sam.ascend(gradsAt(params)); // the parameters are now uphill
 * sam.step(gradsAt(params)); // back, and a step
 */
export class SAM<P extends Parameter> {
  readonly base: Steppable<P>;
  readonly #storage: Storage<P>;
  readonly #rho: number;
  readonly #adaptive: boolean;
  /** Copies of the parameters that were moved uphill, while they are there. */
  #before: Map<string, P> | undefined;

  constructor(base: Steppable<P>, options: SAMOptions = {}) {
    checkKeys("SAM", options, ["rho", "adaptive"]);
    const { rho = 0.05, adaptive = false } = options;
    checkPositive("SAM", "rho", rho);
    checkBoolean("SAM", "adaptive", adaptive);
    if (typeof base?.step !== "function") {
      throw new OptionError(`[SAM] the base must be an optimizer of @llmeff/optim; received ${show(base)}.`);
    }
    this.base = base;
    this.#storage = storageOf("SAM", base.params);
    this.#rho = rho;
    this.#adaptive = adaptive;
  }

  /** Whether the parameters are uphill, between `ascend` and `step`. */
  get ascended(): boolean {
    return this.#before !== undefined;
  }

  /** Moves the parameters whose gradients are given uphill. */
  ascend(grads: Named<P>): void {
    refuseChange("SAM.ascend");
    this.#ascend(grads);
  }

  #ascend(grads: Named<P>): void {
    if (this.#before)
      throw new OptionError("[SAM.ascend] the parameters are uphill; call step(grads) or descend() first.");
    requireNamed("SAM.ascend", "gradients", grads);
    const named = Object.entries(grads).filter(([, grad]) => grad !== undefined);
    for (const [name, grad] of named) this.#checkGrad(name, grad);
    const before = new Map<string, P>();
    this.#storage.run(() => {
      if (named.length === 0) return;
      const params = named.map(([name]) => this.#wide(this.base.params[name]!));
      const gradients = named.map(([, grad]) => this.#wide(grad));
      const sizes = this.#adaptive ? params.map(abs) : undefined;
      const scaled = sizes ? gradients.map((g, i) => mul(g, sizes[i]!)) : gradients;
      const norm = globalNorm(scaled);
      const finite = isFiniteNumber(norm);
      const factor = div(this.#rho, add(norm, leastNorm));
      const writers = named.map(([name], i) => {
        const param = this.base.params[name]!;
        const way = mul(sizes ? mul(scaled[i]!, sizes[i]!) : scaled[i]!, factor);
        before.set(name, this.#storage.own(this.#tensor(param)));
        return this.#storage.writer(param, add(params[i]!, where(finite, way, 0)));
      });
      for (const write of writers) write();
    });
    this.#before = before;
  }

  /** Puts the parameters back to where they were before `ascend`, to the bit. Does nothing if they are there. */
  descend(): void {
    refuseChange("SAM.descend");
    this.#descend();
  }

  #descend(): void {
    for (const [name, copy] of this.#before ?? []) {
      this.#storage.assign(this.base.params[name]!, copy);
      this.#storage.dispose(copy);
    }
    this.#before = undefined;
  }

  /**
   * Steps from where the parameters were before `ascend`, with gradients taken uphill. Given a function that takes gradients, calls it, moves uphill, calls it
   * again, and steps; returns what the first call gave, which is what there is to report of this step. If something throws, the parameters are back.
   */
  step(grads: Named<P>): void;
  step<R extends { readonly grads: Named<P> }>(take: () => R): R;
  step<R extends { readonly grads: Named<P> }>(gradsOrTake: Named<P> | (() => R)): R | undefined {
    if (typeof gradsOrTake !== "function") {
      if (!this.#before)
        throw new OptionError("[SAM.step] call ascend(grads) first, and take the gradients of the step there.");
      requireNamed("SAM.step", "gradients", gradsOrTake);
      this.descend();
      this.base.step(gradsOrTake);
      return undefined;
    }
    const take = (): R => {
      const taken = gradsOrTake();
      refusePromise("SAM.step", taken);
      requireNamed("SAM.step", "a function that returns { grads }, gradients", taken?.grads);
      return taken;
    };
    const first = take();
    this.#ascend(first.grads);
    try {
      const { grads } = take();
      this.#descend();
      this.base.step(grads);
    } finally {
      this.#descend();
    }
    return first;
  }

  #checkGrad(name: string, grad: P): void {
    const param = own(this.base.params, name);
    if (param === undefined) throw new OptionError(`[SAM.ascend] there is no parameter "${name}".`);
    if (portrait(grad) !== portrait(param)) {
      throw new ShapeError(
        `[SAM.ascend] the gradient of "${name}" must be a ${portrait(param)}; received a ${portrait(grad)}.`,
      );
    }
  }

  #tensor(array: P): Tensor {
    return this.#storage.tensor(array, [sizeOf(array)], "dtype" in array ? array.dtype : this.#storage.dtype);
  }
  #wide(array: P): Tensor {
    return astype(this.#tensor(array), this.#storage.dtype);
  }
}

/** As in the authors' code: gradients of 0 lead nowhere, and not to NaN. */
const leastNorm = 1e-12;
