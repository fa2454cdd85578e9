import { checkBoolean, checkCount, checkNotNegative, checkOneOf } from "./check.js";
import type { ScalarOrSchedule } from "./schedules.js";
import { checkDecay, checkTearfree, type TearfreeHyper, tearfreeDefaults } from "./tearfree-options.js";

export interface SketchyDirectionHyper extends TearfreeHyper {
  /** Decay of the statistics; 1 adds them up. Default 0.999. */
  beta2: number;
  /** Added to the eigenvalues. Default 1e-7. */
  eps: number;
  /** `true` (default): `eps` is relative to the largest eigenvalue. */
  relativeEps: boolean;
  /** Eigenvectors kept of each axis. Default 128. */
  rank: number;
  /** Sketches take the gradients of steps 1, 1 + k, 1 + 2k, …; those in between don't enter. Default 1. */
  updateEvery: number;
  /** Axes are cut into blocks of at most this; 0 (default): never. */
  blockSize: number;
  /** The escaped mass decays by `beta2` (default; the paper) or by its root (the authors' later code). */
  tailDecay: "beta2" | "sqrtBeta2";
  /** Singular values of at most this times the largest count as 0. Default 1e-6. */
  rankTol: number;
}

export interface SketchyHyper extends SketchyDirectionHyper {
  /** Default 1e-3. */
  learningRate: ScalarOrSchedule;
  /** Decoupled, applied after momentum. Default 0. */
  weightDecay: number;
}

export const sketchyDirectionDefaults = {
  ...tearfreeDefaults,
  beta2: 0.999,
  eps: 1e-7,
  relativeEps: true,
  rank: 128,
  updateEvery: 1,
  blockSize: 0,
  tailDecay: "beta2",
  rankTol: 1e-6,
} as const satisfies SketchyDirectionHyper;

export function checkSketchy(where: string, hyper: SketchyDirectionHyper): void {
  checkTearfree(where, hyper);
  checkDecay(where, "beta2", hyper.beta2);
  checkNotNegative(where, "eps", hyper.eps);
  checkBoolean(where, "relativeEps", hyper.relativeEps);
  checkCount(where, "rank", hyper.rank, 1);
  checkCount(where, "updateEvery", hyper.updateEvery, 1);
  checkCount(where, "blockSize", hyper.blockSize);
  checkOneOf(where, "tailDecay", hyper.tailDecay, ["beta2", "sqrtBeta2"]);
  checkNotNegative(where, "rankTol", hyper.rankTol);
}
