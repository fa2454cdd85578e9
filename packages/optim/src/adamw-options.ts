import { checkBeta, checkBoolean, checkDecay, checkNotNegative } from "./check.js";
import type { ScalarOrSchedule } from "./schedules.js";

/** Hyper-parameters of AdamW; the defaults are PyTorch's. */
export interface AdamWHyper {
  /** Default 1e-3. */
  learningRate: ScalarOrSchedule;
  /** Decay of the average of the gradients. Default 0.9. */
  beta1: number;
  /** Decay of the average of their squares. Default 0.999; 0.95 is usual for language models. */
  beta2: number;
  /** Added to the root of the second moment. Default 1e-8. */
  eps: number;
  /** Default 1e-2. */
  weightDecay: number;
  /** `true` (default): decay apart from the gradient. `false`: `weightDecay · p` is added to the gradient (L2, plain Adam). */
  decoupled: boolean;
  /** Divides by the largest second moment so far (Reddi et al. 2018). Default `false`. */
  amsgrad: boolean;
}

export const adamwDefaults = {
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  weightDecay: 1e-2,
  decoupled: true,
  amsgrad: false,
} as const satisfies Omit<AdamWHyper, "learningRate">;

export function checkAdamW(where: string, hyper: Omit<AdamWHyper, "learningRate">): void {
  checkBeta(where, "beta1", hyper.beta1);
  checkBeta(where, "beta2", hyper.beta2);
  checkNotNegative(where, "eps", hyper.eps);
  checkDecay(where, hyper);
  checkBoolean(where, "amsgrad", hyper.amsgrad);
}
