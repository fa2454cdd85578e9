import { checkCount, checkNotNegative, checkOneOf } from "./check.js";
import type { RidgeMode } from "./inverse-root.js";
import type { ScalarOrSchedule } from "./schedules.js";
import { checkDecay, checkTearfree, type TearfreeHyper, tearfreeDefaults } from "./tearfree-options.js";

const rootMethods = ["eigh", "coupledNewton"] as const;
/** How inverse roots are computed. */
export type RootMethod = (typeof rootMethods)[number];

export interface ShampooDirectionHyper extends TearfreeHyper {
  /** Decay of the statistics; 1 adds them up. Default 0.999. */
  beta2: number;
  /** Ridge, or with `ridge: "cutoff"` the smallest eigenvalue that counts, relative to the largest. Default 1e-6. */
  eps: number;
  /** Default `"relative"`: `eps · λmax` is added to the eigenvalues. `"cutoff"` needs `root: "eigh"`. */
  ridge: RidgeMode;
  /** Axes are cut into blocks of at most this, each with preconditioners of its own; 0: never. Default 1024. */
  blockSize: number;
  /** Statistics take the gradients of steps 1, 1 + k, 1 + 2k, … Default 1. */
  statEvery: number;
  /** Roots are computed at steps 1, 1 + k, 1 + 2k, … Default 1; 10 to 100 cost little and lose little. */
  rootEvery: number;
  /** Default `"eigh"`: exact. `"coupledNewton"`: products alone, which suit GPUs. Both in float64. */
  root: RootMethod;
}

export interface ShampooHyper extends ShampooDirectionHyper {
  /** Default 1e-3. */
  learningRate: ScalarOrSchedule;
  /** Decoupled, applied after momentum. Default 0. */
  weightDecay: number;
}

export const shampooDirectionDefaults = {
  ...tearfreeDefaults,
  beta2: 0.999,
  eps: 1e-6,
  ridge: "relative",
  blockSize: 1024,
  statEvery: 1,
  rootEvery: 1,
  root: "eigh",
} as const satisfies ShampooDirectionHyper;

export function checkShampoo(where: string, hyper: ShampooDirectionHyper): void {
  checkTearfree(where, hyper);
  checkDecay(where, "beta2", hyper.beta2);
  checkNotNegative(where, "eps", hyper.eps);
  checkOneOf(where, "root", hyper.root, rootMethods);
  checkOneOf(
    where,
    "ridge",
    hyper.ridge,
    hyper.root === "eigh" ? ["relative", "absolute", "cutoff"] : ["relative", "absolute"],
  );
  checkCount(where, "blockSize", hyper.blockSize);
  checkCount(where, "statEvery", hyper.statEvery, 1);
  checkCount(where, "rootEvery", hyper.rootEvery, 1);
}
