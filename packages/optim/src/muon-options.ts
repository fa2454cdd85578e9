import { checkBeta, checkBoolean, checkCount, checkNotNegative, checkOneOf } from "./check.js";
import type { ScalarOrSchedule } from "./schedules.js";

const muonScales = ["original", "matchRmsAdamw", "none"] as const;
/** What an orthogonal update is multiplied by. */
export type MuonScale = (typeof muonScales)[number];

const productDTypes = ["auto", "same", "bfloat16"] as const;
/** What the Newton–Schulz products are computed in. */
export type MuonProductDType = (typeof productDTypes)[number];

/** Hyper-parameters of Muon's rule for matrices. */
export interface MuonDirectionHyper {
  /** Factor of the running average of the gradients. Default 0.95. */
  momentum: number;
  /** Orthogonalizes `(1 − momentum) g + momentum b` in place of the average `b`. Default `true`. */
  nesterov: boolean;
  /** Newton–Schulz iterations. Default 5. */
  nsSteps: number;
  /**
   * `"original"` (default): `√max(1, rows/columns)`. `"matchRmsAdamw"`: `0.2 √max(rows, columns)`, which makes updates as large as AdamW's, so that its
   * learning rate and decay can be kept. `"none"`: 1.
   */
  scale: MuonScale;
  /**
   * `"auto"` (default): bfloat16 for float32 on a GPU, else that of the gradients. `"same"`: that of the gradients everywhere. `"bfloat16"`: always.
   * The average of the gradients keeps the dtype of the parameters.
   */
  productDType: MuonProductDType;
}

const muonMethods = ["auto", "muon", "adamw"] as const;
/** Which rule steps a parameter. */
export type MuonMethod = (typeof muonMethods)[number];

/** Hyper-parameters of Muon together with those of the AdamW that steps everything else. */
export interface MuonHyper extends MuonDirectionHyper {
  /** Of the matrices. Default 0.02. */
  learningRate: ScalarOrSchedule;
  /** Decoupled decay of the matrices. Default 0. */
  weightDecay: number;
  /** Of what isn't a hidden matrix. Default 3e-4. */
  adamLearningRate: ScalarOrSchedule;
  /** Default 0.9. */
  adamBeta1: number;
  /** Default 0.95. */
  adamBeta2: number;
  /** Default 1e-10. */
  adamEps: number;
  /** Default 0. */
  adamWeightDecay: number;
}

/** Hyper-parameters of the optimizer class. */
export interface MuonOptimizerHyper extends MuonHyper {
  /**
   * `"auto"` (default): Muon steps tensors of two axes or more, AdamW the others. Embeddings and heads need a group of `"adamw"`:
   * `groups: [{ params: /embed|head/, method: "adamw" }]`.
   */
  method: MuonMethod;
}

export const muonDirectionDefaults = {
  momentum: 0.95,
  nesterov: true,
  nsSteps: 5,
  scale: "original",
  productDType: "auto",
} as const satisfies MuonDirectionHyper;

export const muonDefaults = {
  ...muonDirectionDefaults,
  weightDecay: 0,
  adamLearningRate: 3e-4,
  adamBeta1: 0.9,
  adamBeta2: 0.95,
  adamEps: 1e-10,
  adamWeightDecay: 0,
} as const satisfies Omit<MuonHyper, "learningRate">;

export function checkMuonDirection(where: string, hyper: MuonDirectionHyper): void {
  checkBeta(where, "momentum", hyper.momentum);
  checkBoolean(where, "nesterov", hyper.nesterov);
  checkCount(where, "nsSteps", hyper.nsSteps);
  checkOneOf(where, "scale", hyper.scale, muonScales);
  checkOneOf(where, "productDType", hyper.productDType, productDTypes);
}

export function checkMuon(where: string, hyper: Omit<MuonHyper, "learningRate">): void {
  checkMuonDirection(where, hyper);
  checkNotNegative(where, "weightDecay", hyper.weightDecay);
  if (typeof hyper.adamLearningRate !== "function") checkNotNegative(where, "adamLearningRate", hyper.adamLearningRate);
  checkBeta(where, "adamBeta1", hyper.adamBeta1);
  checkBeta(where, "adamBeta2", hyper.adamBeta2);
  checkNotNegative(where, "adamEps", hyper.adamEps);
  checkNotNegative(where, "adamWeightDecay", hyper.adamWeightDecay);
}

export function checkMuonOptimizer(where: string, hyper: Omit<MuonOptimizerHyper, "learningRate">): void {
  checkMuon(where, hyper);
  checkOneOf(where, "method", hyper.method, muonMethods);
}
