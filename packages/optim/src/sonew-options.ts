import { DTypeError } from "@llmeff/native";
import { checkBeta, checkBoolean, checkNotNegative, checkNumber, checkOneOf, checkPositive } from "./check.js";
import type { ScalarOrSchedule } from "./schedules.js";

/** What the length of SONew's update is borrowed from. */
const sonewGrafts = ["none", "adam", "adamRaw", "sgd", "momentum", "rmspropNorm"] as const;
export type SonewGraft = (typeof sonewGrafts)[number];

const stateDtypes = ["float32", "float64", "bfloat16"] as const;
/** What the running averages are stored in. */
export type StateDtype = (typeof stateDtypes)[number];

/** The widest band that there is. */
export const mostBand = 10;

/** Hyper-parameters of SONew. Learning rate and eps need tuning; with a graft the learning rate is near that of the grafted method. */
export interface SonewHyper {
  /** Default 1e-3. */
  learningRate: ScalarOrSchedule;
  /** Decay of the average of the gradients. Default 0.9. */
  beta1: number;
  /** Decay of the average of their products. Default 0.99. */
  beta2: number;
  /**
   * Neighbours on each side whose products with a coordinate are kept, 0 to 10: 0 is diagonal, 1 tridiagonal. State is band + 2 numbers a parameter,
   * and arithmetic grows with the band's cube. Default 1.
   */
  band: number;
  /** Added to the diagonal of the statistics; choose it relative to the gradient's square. Default 1e-8. */
  eps: number;
  /** `"relative"`: eps times the largest row sum of the chain's statistics. Default `"absolute"`. */
  epsMode: "absolute" | "relative";
  /** An edge is dropped where the Schur complement is at most gamma times the diagonal. Default by what the state is stored in: 1e-6 for float32, 7.8e-3 for bfloat16, 0 for float64. */
  gamma: number | undefined;
  /** `"absolute"`: the Schur complement is compared with gamma itself. Default `"relative"`. */
  gammaMode: "relative" | "absolute";
  /**
   * Where an edge is dropped: `"forward"`, all from the failing coordinate to those after it; `"isolate"`, those to the coordinates before it, too,
   * and then everything is factorised again without them. Default `"forward"`.
   */
  drop: "forward" | "isolate";
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
  /**
   * `"bfloat16"` stores the running averages in half the memory of float32, rounded stochastically; only for tensors that are stepped in float32. Those
   * that take Adam's update keep full averages. Default: the parameters' own, float32 for those in 16 bits.
   */
  stateDtype: StateDtype | undefined;
  /** Of the random numbers that round the state to bfloat16; a non-negative integer. Default 0. */
  seed: number;
}

export const sonewDefaults = {
  beta1: 0.9,
  beta2: 0.99,
  band: 1,
  eps: 1e-8,
  epsMode: "absolute",
  gamma: undefined,
  gammaMode: "relative",
  drop: "forward",
  graft: "adam",
  graftEps: 1e-8,
  order: "row",
  chain: "tensor",
  biasCorrection: true,
  weightDecay: 0,
  vectors: "sonew",
  stateDtype: undefined,
  seed: 0,
} as const satisfies Omit<SonewHyper, "learningRate">;

/** The default stability threshold by the dtype of the state: well above the rounding error of a Schur complement. */
export function defaultGamma(stateDtype: string): number {
  return { float32: 1e-6, bfloat16: 7.8e-3 }[stateDtype] ?? 0;
}

/** The largest relative rounding error of a number of the state. */
export function roundingUnit(stateDtype: string): number {
  return { float32: 2 ** -24, bfloat16: 2 ** -8 }[stateDtype] ?? 2 ** -53;
}

/** Refuses state that is not of the dtype that parameters are stepped in, nor bfloat16 beside float32. */
export function checkStateDtype(where: string, stateDtype: StateDtype, stepped: "float32" | "float64"): void {
  if (stateDtype === stepped || (stateDtype === "bfloat16" && stepped === "float32")) return;
  throw new DTypeError(
    `[${where}] stateDtype "${stateDtype}" doesn't go with parameters that are stepped in ${stepped}. Use "${stepped}"${
      stepped === "float32" ? ' or "bfloat16"' : ""
    }.`,
  );
}

export function checkSonew(where: string, hyper: Omit<SonewHyper, "learningRate">): void {
  checkBeta(where, "beta1", hyper.beta1);
  checkBeta(where, "beta2", hyper.beta2);
  const isBand = (x: number) => Number.isInteger(x) && x >= 0 && x <= mostBand;
  checkNumber(where, "band", hyper.band, `an integer in 0 … ${mostBand}`, isBand);
  checkPositive(where, "eps", hyper.eps);
  checkOneOf(where, "epsMode", hyper.epsMode, ["absolute", "relative"]);
  checkOneOf(where, "gammaMode", hyper.gammaMode, ["relative", "absolute"]);
  if (hyper.gamma !== undefined && hyper.gammaMode === "absolute") checkNotNegative(where, "gamma", hyper.gamma);
  if (hyper.gamma !== undefined && hyper.gammaMode === "relative") {
    checkNumber(where, "gamma", hyper.gamma, "a number in [0, 1)", (x) => x >= 0 && x < 1);
  }
  checkOneOf(where, "drop", hyper.drop, ["forward", "isolate"]);
  checkOneOf(where, "graft", hyper.graft, sonewGrafts);
  checkPositive(where, "graftEps", hyper.graftEps);
  checkOneOf(where, "order", hyper.order, ["row", "col"]);
  checkOneOf(where, "chain", hyper.chain, ["tensor", "row"]);
  checkBoolean(where, "biasCorrection", hyper.biasCorrection);
  checkNotNegative(where, "weightDecay", hyper.weightDecay);
  checkOneOf(where, "vectors", hyper.vectors, ["sonew", "adam"]);
  if (hyper.stateDtype !== undefined) checkOneOf(where, "stateDtype", hyper.stateDtype, stateDtypes);
  checkNumber(where, "seed", hyper.seed, "a non-negative integer", (x) => Number.isSafeInteger(x) && x >= 0);
}
