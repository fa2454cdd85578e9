import { checkBeta, checkBoolean, checkNotNegative, checkNumber, checkOneOf, checkPositive } from "./check.js";
import type { ScalarOrSchedule } from "./schedules.js";

/** What the length of SONew's update is borrowed from. */
const sonewGrafts = ["none", "adam", "adamRaw", "sgd", "momentum", "rmspropNorm"] as const;
export type SonewGraft = (typeof sonewGrafts)[number];

/** Hyper-parameters of tridiagonal SONew. Learning rate and eps need tuning; with a graft the learning rate is near that of the grafted method. */
export interface SonewHyper {
  /** Default 1e-3. */
  learningRate: ScalarOrSchedule;
  /** Decay of the average of the gradients. Default 0.9. */
  beta1: number;
  /** Decay of the average of their products. Default 0.99. */
  beta2: number;
  /** Added to the diagonal of the statistics; choose it relative to the gradient's square. Default 1e-8. */
  eps: number;
  /** `"relative"`: eps times the largest row sum of the chain's statistics. Default `"absolute"`. */
  epsMode: "absolute" | "relative";
  /** An edge is dropped where the Schur complement is at most gamma times the diagonal. Default 1e-6 for float32, 0 for float64. */
  gamma: number | undefined;
  /** `"absolute"`: the Schur complement is compared with gamma itself. Default `"relative"`. */
  gammaMode: "relative" | "absolute";
  /**
   * The update gets, tensor by tensor, the Euclidean length of: Adam's update (default), Adam's with an uncorrected second
   * moment (`adamRaw`), the gradient (`sgd`), its average (`momentum`), or RMSprop on the normalised gradient (`rmspropNorm`).
   * `none` keeps its own length, about 1/|g|, which needs very small learning rates.
   */
  graft: SonewGraft;
  /** eps of the grafted method. Default 1e-8. */
  graftEps: number;
  /**
   * `"row"`: neighbours are consecutive in memory. `"col"`: as if all axes were reversed, for weights stored [in, out]; the saved state
   * has that order, too. Default `"row"`.
   */
  order: "row" | "col";
  /** `"tensor"`: one chain a tensor. `"row"`: one for each run along the last axis. Default `"tensor"`. */
  chain: "tensor" | "row";
  /** Default `true`. */
  biasCorrection: boolean;
  /** Decoupled, applied after grafting. Default 0. */
  weightDecay: number;
  /** `"adam"`: tensors with fewer than two axes take Adam's update, with graftEps as its eps. Default `"sonew"`. */
  vectors: "sonew" | "adam";
}

export const sonewDefaults = {
  beta1: 0.9,
  beta2: 0.99,
  eps: 1e-8,
  epsMode: "absolute",
  gamma: undefined,
  gammaMode: "relative",
  graft: "adam",
  graftEps: 1e-8,
  order: "row",
  chain: "tensor",
  biasCorrection: true,
  weightDecay: 0,
  vectors: "sonew",
} as const satisfies Omit<SonewHyper, "learningRate">;

/** The default stability threshold: about the rounding error of a Schur complement in float32 (optimizers in float64 need none). */
export function defaultGamma(dtype: string): number {
  return dtype === "float32" ? 1e-6 : 0;
}

export function checkSonew(where: string, hyper: Omit<SonewHyper, "learningRate">): void {
  checkBeta(where, "beta1", hyper.beta1);
  checkBeta(where, "beta2", hyper.beta2);
  checkPositive(where, "eps", hyper.eps);
  checkOneOf(where, "epsMode", hyper.epsMode, ["absolute", "relative"]);
  checkOneOf(where, "gammaMode", hyper.gammaMode, ["relative", "absolute"]);
  if (hyper.gamma !== undefined && hyper.gammaMode === "absolute") checkNotNegative(where, "gamma", hyper.gamma);
  if (hyper.gamma !== undefined && hyper.gammaMode === "relative") {
    checkNumber(where, "gamma", hyper.gamma, "a number in [0, 1)", (x) => x >= 0 && x < 1);
  }
  checkOneOf(where, "graft", hyper.graft, sonewGrafts);
  checkPositive(where, "graftEps", hyper.graftEps);
  checkOneOf(where, "order", hyper.order, ["row", "col"]);
  checkOneOf(where, "chain", hyper.chain, ["tensor", "row"]);
  checkBoolean(where, "biasCorrection", hyper.biasCorrection);
  checkNotNegative(where, "weightDecay", hyper.weightDecay);
  checkOneOf(where, "vectors", hyper.vectors, ["sonew", "adam"]);
}
