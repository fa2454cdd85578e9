import { engine, Graft, OptionError, type Scalar, UpdateRule } from "@llmeff/native";
import { withDefaults } from "./check.js";
import { prepareElementwise } from "./elementwise.js";
import { adamFactors } from "./fused-adamw.js";
import { FusedOptimizer } from "./optimizer.js";
import { type Bucket, type CommonOptions, roundings, type Slot, stepped } from "./optimizer-types.js";
import { checkSonew, defaultGamma, type SonewHyper, sonewDefaults } from "./sonew-options.js";
import type { StateDomains } from "./state-values.js";
import type { Parameter } from "./storage.js";

export interface SonewOptions extends Partial<SonewHyper>, CommonOptions<SonewHyper> {}

/**
 * SONew (Devvrit et al. 2023, arXiv:2311.10085): an online Newton method whose second-moment matrix keeps only products of coordinates at most
 * `band` apart. band + 2 numbers of state a parameter, and one fused kernel a step that reads memory once (twice with a graft).
 *
 * `p ← p − lr · (s · L D Lᵀ m̂ + weightDecay · p)`, where `L D Lᵀ` is the positive definite matrix with that band that is nearest in LogDet divergence
 * to the inverse of the averaged `g gᵀ`, and `s` the graft's factor.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new Sonew(params, { learningRate: 2e-3, eps: 1e-6, maxGradNorm: 1 });
 * optimizer.step(grads);
 */
export class Sonew<P extends Parameter> extends FusedOptimizer<P, SonewHyper> {
  readonly kind = "sonew";
  readonly #dropped: ReturnType<FusedOptimizer<P, SonewHyper>["storage"]["counter"]>;

  constructor(params: Readonly<Record<string, P>>, options: SonewOptions = {}) {
    const hyper = withDefaults<SonewHyper>({ learningRate: 1e-3, ...sonewDefaults }, options);
    const states = (group: SonewHyper) => ["m", ...diagonals(group), ...(group.graft === "rmspropNorm" ? ["rms"] : [])];
    const stateDtype = (group: SonewHyper, shape: readonly number[]) =>
      takesAdam(shape, group) ? undefined : group.stateDtype;
    super("Sonew", params, hyper, options, states, checkSonew, stateDtype);
    this.#dropped = this.storage.counter();
  }

  /** How many coordinates failed the stability test so far, since the optimizer was made: their edges were left out of their steps. */
  async droppedEdges(): Promise<number> {
    return this.storage.read(this.#dropped);
  }

  override dispose(): void {
    super.dispose();
    this.storage.dispose(this.#dropped);
  }

  /** The main diagonal and `rms` average squares. */
  protected override get stateDomains(): StateDomains {
    return { notNegative: ["h0", "rms"] };
  }

  protected override prepareBucket(bucket: Bucket<P, SonewHyper>): () => void {
    const { slots, grads, hyper } = bucket;
    const byAdam = slots.map((slot) => takesAdam(slot.shape, hyper));
    const pick = (adam: boolean): Bucket<P, SonewHyper> => ({
      ...bucket,
      slots: slots.filter((_, i) => byAdam[i] === adam),
      grads: grads.filter((_, i) => byAdam[i] === adam),
    });
    const kernels = [
      ...(byAdam.includes(true) ? [this.#prepareAdam(pick(true))] : []),
      ...(byAdam.includes(false) ? [this.#prepareSonew(pick(false))] : []),
    ];
    return () => {
      for (const call of kernels) call();
    };
  }

  #prepareAdam(bucket: Bucket<P, SonewHyper>): () => void {
    const factors = bucket.scalars((hyper, step) => {
      const t = hyper.biasCorrection ? step : uncorrectedStep;
      const adam = { ...hyper, eps: hyper.graftEps, decoupled: true };
      return adamFactors(adam, t, hyper.learningRate / (1 - hyper.beta1 ** t), 0);
    });
    return prepareElementwise("Sonew", this.storage, bucket, { rule: UpdateRule.adam, states: ["m", "h0"], factors });
  }

  #prepareSonew({ slots, grads, hyper, gradScale, scalars }: Bucket<P, SonewHyper>): () => void {
    const { storage } = this;
    const [learningRate, step] = scalars(({ learningRate }, step) => [learningRate, step]) as [Scalar, Scalar];
    const ids = new Map(Object.keys(this.params).map((name, i) => [name, i]));
    const operands = (arrays: readonly P[]) => arrays.map((array) => storage.operand(array));
    const reversed = (array: P, slot: Slot<P>) =>
      isReversed(slot, hyper) ? storage.reversed(array, slot.shape) : array;
    const params = slots.map((slot) => reversed(stepped(slot), slot));
    // The kernel writes roundings in the order of its chains.
    const copies = slots.some((slot) => isReversed(slot, hyper)) ? [] : roundings(slots);
    const state = (key: string) => operands(slots.map((slot) => stateOf(slot, key)));
    const call = engine().op.sonewStep.bind(
      null,
      operands(params),
      operands(copies),
      operands(grads.map((grad, i) => reversed(grad, slots[i]!))),
      state("m"),
      diagonals(hyper).flatMap(state),
      hyper.graft === "rmspropNorm" ? state("rms") : [],
      slots.map((slot) => chainLength(slot.shape, hyper)),
      slots.map((slot) => ids.get(slot.name)!),
      gradScale,
      learningRate,
      hyper.beta1,
      hyper.beta2,
      hyper.eps,
      hyper.epsMode === "relative",
      hyper.gamma ?? defaultGamma(hyper.stateDtype ?? storage.dtype),
      hyper.gammaMode === "absolute",
      hyper.drop === "isolate",
      Graft[hyper.graft],
      hyper.graftEps,
      hyper.biasCorrection,
      hyper.weightDecay,
      step,
      hyper.seed,
      typeof this.#dropped === "object" && "handle" in this.#dropped ? this.#dropped.handle : this.#dropped,
    );
    return () => {
      call();
      for (const [i, slot] of slots.entries()) {
        if (isReversed(slot, hyper)) storage.assignReversed(stepped(slot), params[i]!, slot.shape);
        if (copies.length === 0 && slot.state.master) storage.assign(slot.param, slot.state.master);
      }
    };
  }
}

/** A step number whose powers of beta are 0, so that Adam's bias correction divides by 1. */
const uncorrectedStep = Number.MAX_SAFE_INTEGER;

/** A slot's array of state; there may be none when a group's `band` or `graft` was changed. */
function stateOf<P extends Parameter>({ name, state }: Slot<P>, key: string): P {
  const array = state[key];
  if (array !== undefined) return array;
  throw new OptionError(
    `[Sonew.step] "${name}" has no state "${key}": a wider band, or the graft "rmspropNorm", can't be chosen after the optimizer was made. Make a new one.`,
  );
}

/** The names of a tensor's diagonals of statistics. */
const diagonals = ({ band }: SonewHyper) => Array.from({ length: band + 1 }, (_, k) => `h${k}`);

const takesAdam = (shape: readonly number[], { vectors }: SonewHyper) => vectors === "adam" && shape.length < 2;

/** Whether the chain runs through a transposed copy. With fewer than two axes both orders are the same. */
function isReversed(slot: Slot<Parameter>, hyper: SonewHyper): boolean {
  return hyper.order === "col" && slot.shape.length >= 2;
}

/** Elements of a chain; 0 stands for the whole tensor. In column order the last axis is the first one. */
export function chainLength(shape: readonly number[], hyper: Pick<SonewHyper, "chain" | "order">): number {
  if (hyper.chain === "tensor") return 0;
  return (hyper.order === "col" ? shape[0] : shape.at(-1)) ?? 1;
}
