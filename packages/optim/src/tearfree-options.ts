import { checkBeta, checkBoolean, checkCount, checkNotNegative, checkNumber, checkOneOf } from "./check.js";

const grafts = ["none", "rmsprop", "sgd", "rmspropNorm"] as const;
/** What the length of a preconditioned update is borrowed from. */
export type ShampooGraft = (typeof grafts)[number];

/** What Shampoo and Sketchy do with a preconditioned gradient. */
export interface TearfreeHyper {
  /** Heavy-ball factor. Default 0.9. */
  momentum: number;
  /** Default `true`. */
  nesterov: boolean;
  /** `true`: the update is multiplied by `1 − momentum` before it is added to the buffer, a running average. Default `false`. */
  ema: boolean;
  /**
   * The update gets, tensor by tensor, the Euclidean length of `g / √(v + graftEps)` with the running second moment `v` (`rmsprop`, default), of the
   * gradient (`sgd`), or of the former on the normalised gradient (`rmspropNorm`). `none` keeps its own.
   */
  graft: ShampooGraft;
  /** Decay of `v`; 1 adds up the squares (AdaGrad). Default 0.999. */
  graftBeta2: number;
  /** Default 1e-23: zero gradients give zero. */
  graftEps: number;
  /** Until this step tensors follow the graft alone while their statistics gather. Default 0. */
  startStep: number;
  /** Tensors of fewer than two axes follow the graft alone. Default `true`; without a graft they are preconditioned, as one axis. */
  skipRank1: boolean;
  /** So do tensors with an axis longer than this. Default 4096. */
  skipDimGt: number;
  /** Neighbouring axes are merged while their product is at most this. Default 1024. */
  mergeDims: number;
}

export const tearfreeDefaults = {
  momentum: 0.9,
  nesterov: true,
  ema: false,
  graft: "rmsprop",
  graftBeta2: 0.999,
  graftEps: 1e-23,
  startStep: 0,
  skipRank1: true,
  skipDimGt: 4096,
  mergeDims: 1024,
} as const satisfies TearfreeHyper;

export function checkTearfree(where: string, hyper: TearfreeHyper): void {
  checkBeta(where, "momentum", hyper.momentum);
  checkBoolean(where, "nesterov", hyper.nesterov);
  checkBoolean(where, "ema", hyper.ema);
  checkOneOf(where, "graft", hyper.graft, grafts);
  checkDecay(where, "graftBeta2", hyper.graftBeta2);
  checkNotNegative(where, "graftEps", hyper.graftEps);
  checkCount(where, "startStep", hyper.startStep);
  checkBoolean(where, "skipRank1", hyper.skipRank1);
  checkCount(where, "skipDimGt", hyper.skipDimGt);
  checkCount(where, "mergeDims", hyper.mergeDims);
}

/** A decay that may be 1: plain sums. */
export function checkDecay(where: string, name: string, value: unknown): void {
  checkNumber(where, name, value, "a number in (0, 1]", (x) => x > 0 && x <= 1);
}
