import { checkBeta, checkCount, checkNotNegative, checkNumber, checkOneOf, checkPositive } from "./check.js";
import type { ScalarOrSchedule } from "./schedules.js";

export interface PsgdKronDirectionHyper {
  /** Factor of the running average of the gradients; 0 turns it off. Default 0.9. */
  momentum: number;
  /** What the preconditioner is fitted to: the gradients (default) or their average. The average is what it is applied to. */
  whiten: "gradient" | "momentum";
  /** Step size of the factors, relative to the largest that is stable. Default 0.1. */
  preconditionerRate: number;
  /** Decay of the running bound of their curvature. Default 0.9. */
  betaL: number;
  /** Size of the noise that is added to gradients for the fit, so that directions without gradient get no infinite factor. Default 1e-9. */
  damping: number;
  /** The factors are fitted every so many steps. Default 1; 10 after the first thousand steps lose little. */
  updateEvery: number;
  /** The preconditioner begins as `initScale² · I`. Default 1. */
  initScale: number;
  /** Longer axes have diagonal factors. Default 8192. */
  maxSize: number;
  /** So do axes whose length squared exceeds this times the number of elements. Default 1: of a matrix the shorter side has a dense factor. */
  maxSkew: number;
  /** Updates are scaled so that their root mean square is at most this. Default 2. */
  clipRms: number;
  /** Then each number is limited to this. Default 10. */
  clipMax: number;
  /** Of the noise. Default 0. */
  seed: number;
}

export interface PsgdKronHyper extends PsgdKronDirectionHyper {
  /** Default 3e-4: whitened updates have a root mean square near 1. */
  learningRate: ScalarOrSchedule;
  /** Decoupled. Default 0. */
  weightDecay: number;
}

export const psgdKronDirectionDefaults = {
  momentum: 0.9,
  whiten: "gradient",
  preconditionerRate: 0.1,
  betaL: 0.9,
  damping: 1e-9,
  updateEvery: 1,
  initScale: 1,
  maxSize: 8192,
  maxSkew: 1,
  clipRms: 2,
  clipMax: 10,
  seed: 0,
} as const satisfies PsgdKronDirectionHyper;

export function checkPsgdKron(where: string, hyper: PsgdKronDirectionHyper): void {
  checkBeta(where, "momentum", hyper.momentum);
  checkOneOf(where, "whiten", hyper.whiten, ["gradient", "momentum"]);
  checkNumber(where, "preconditionerRate", hyper.preconditionerRate, "a number in (0, 1)", (x) => x > 0 && x < 1);
  checkBeta(where, "betaL", hyper.betaL);
  checkNotNegative(where, "damping", hyper.damping);
  checkCount(where, "updateEvery", hyper.updateEvery, 1);
  checkPositive(where, "initScale", hyper.initScale);
  checkCount(where, "maxSize", hyper.maxSize);
  checkNotNegative(where, "maxSkew", hyper.maxSkew);
  checkPositive(where, "clipRms", hyper.clipRms);
  checkPositive(where, "clipMax", hyper.clipMax);
  checkNumber(where, "seed", hyper.seed, "an integer", Number.isSafeInteger);
}
