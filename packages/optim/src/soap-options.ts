import { checkBeta, checkCount, checkNotNegative } from "./check.js";
import type { ScalarOrSchedule } from "./schedules.js";

export interface SoapDirectionHyper {
  /** Decay of the average of the rotated gradients. Default 0.95. */
  beta1: number;
  /** Decay of the average of their squares, and of the second moments of the axes. Default 0.95. */
  beta2: number;
  /** Added to the root of the second moment. Default 1e-8. */
  eps: number;
  /** The basis follows the statistics every so many steps. Default 10. */
  preconditionFrequency: number;
  /** Longer axes aren't rotated. Default 10000. */
  maxPrecondDim: number;
}

export interface SoapHyper extends SoapDirectionHyper {
  /** Default 3e-3. */
  learningRate: ScalarOrSchedule;
  /** Decoupled, of the parameter after the step. Default 0.01. */
  weightDecay: number;
}

export const soapDirectionDefaults = {
  beta1: 0.95,
  beta2: 0.95,
  eps: 1e-8,
  preconditionFrequency: 10,
  maxPrecondDim: 10_000,
} as const satisfies SoapDirectionHyper;

export function checkSoap(where: string, hyper: SoapDirectionHyper): void {
  checkBeta(where, "beta1", hyper.beta1);
  checkBeta(where, "beta2", hyper.beta2);
  checkNotNegative(where, "eps", hyper.eps);
  checkCount(where, "preconditionFrequency", hyper.preconditionFrequency, 1);
  checkCount(where, "maxPrecondDim", hyper.maxPrecondDim);
}
