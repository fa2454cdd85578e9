import { engine, Graft } from "@llmeff/native";
import { withDefaults } from "./check.js";
import { FusedOptimizer } from "./optimizer.js";
import { type Bucket, type CommonOptions, roundings, type Slot, stepped } from "./optimizer-types.js";
import { checkSonew, defaultGamma, type SonewHyper, sonewDefaults } from "./sonew-options.js";
import type { Parameter } from "./storage.js";

export interface SonewOptions extends Partial<SonewHyper>, CommonOptions<SonewHyper> {}

/**
 * Tridiagonal SONew (Devvrit et al. 2023, arXiv:2311.10085): an online Newton method whose second-moment matrix keeps only products of
 * neighbouring coordinates. Three numbers of state a parameter, and one fused kernel a step that reads memory once (twice with a graft).
 *
 * `p ← p − lr · (s · L D Lᵀ m̂ + weightDecay · p)`, where `L D Lᵀ` is the positive definite matrix with a tridiagonal inverse pattern that is nearest in
 * LogDet divergence to the inverse of the averaged `g gᵀ`, and `s` the graft's factor.
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
    const states = (group: SonewHyper) => ["m", "h0", "h1", ...(group.graft === "rmspropNorm" ? ["rms"] : [])];
    super("Sonew", params, hyper, options, states, checkSonew);
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

  protected override prepareBucket(bucket: Bucket<P, SonewHyper>): () => void {
    const { slots, grads, hyper } = bucket;
    const byAdam = slots.map((slot) => hyper.vectors === "adam" && slot.shape.length < 2);
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

  #prepareAdam({ slots, grads, hyper, learningRate, step, gradScale }: Bucket<P, SonewHyper>): () => void {
    const operands = (arrays: readonly P[]) => arrays.map((array) => this.storage.operand(array));
    return engine().op.adamwStep.bind(
      null,
      operands(slots.map(stepped)),
      operands(roundings(slots)),
      operands(grads),
      operands(slots.map((slot) => slot.state.m!)),
      operands(slots.map((slot) => slot.state.h0!)),
      [],
      gradScale,
      learningRate,
      hyper.beta1,
      hyper.beta2,
      hyper.graftEps,
      hyper.weightDecay,
      true,
      hyper.biasCorrection ? step : uncorrectedStep,
    );
  }

  #prepareSonew({ slots, grads, hyper, learningRate, step, gradScale }: Bucket<P, SonewHyper>): () => void {
    const { storage } = this;
    const operands = (arrays: readonly P[]) => arrays.map((array) => storage.operand(array));
    const reversed = (array: P, slot: Slot<P>) =>
      isReversed(slot, hyper) ? storage.reversed(array, slot.shape) : array;
    const params = slots.map((slot) => reversed(stepped(slot), slot));
    // The kernel writes roundings in the order of its chains.
    const copies = slots.some((slot) => isReversed(slot, hyper)) ? [] : roundings(slots);
    const state = (key: string) => operands(slots.map((slot) => slot.state[key]!));
    const call = engine().op.sonewStep.bind(
      null,
      operands(params),
      operands(copies),
      operands(grads.map((grad, i) => reversed(grad, slots[i]!))),
      state("m"),
      state("h0"),
      state("h1"),
      hyper.graft === "rmspropNorm" ? state("rms") : [],
      slots.map((slot) => chainLength(slot.shape, hyper)),
      gradScale,
      learningRate,
      hyper.beta1,
      hyper.beta2,
      hyper.eps,
      hyper.epsMode === "relative",
      hyper.gamma ?? defaultGamma(storage.dtype),
      hyper.gammaMode === "absolute",
      Graft[hyper.graft],
      hyper.graftEps,
      hyper.biasCorrection,
      hyper.weightDecay,
      step,
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

/** Whether the chain runs through a transposed copy. With fewer than two axes both orders are the same. */
function isReversed(slot: Slot<Parameter>, hyper: SonewHyper): boolean {
  return hyper.order === "col" && slot.shape.length >= 2;
}

/** Elements of a chain; 0 stands for the whole tensor. In column order the last axis is the first one. */
export function chainLength(shape: readonly number[], hyper: Pick<SonewHyper, "chain" | "order">): number {
  if (hyper.chain === "tensor") return 0;
  return (hyper.order === "col" ? shape[0] : shape.at(-1)) ?? 1;
}
