/**
 * The optimizers that the studies compare: how each is made from its settings, and the space in which its settings are searched. Every space
 * has the learning rate over three decades around what the rule's users begin with, and the rule's own rates and eps, so that equal budgets
 * are equal chances.
 */
import { AdamW, Sonew } from "@llmeff/optim";
import { logUniform, oneMinus } from "./search.mjs";

const beta1 = oneMinus(0.02, 0.3);
const beta2 = oneMinus(0.001, 0.1);

const sonew = (options = {}) => ({
  make: (params, hyper) => new Sonew(params, { ...options, weightDecay: 0, ...hyper }),
  space: { learningRate: logUniform(1e-4, 1e-1), beta1, beta2, eps: logUniform(1e-10, 1e-4) },
});

export const rules = {
  adam: {
    label: "Adam",
    make: (params, hyper) => new AdamW(params, { weightDecay: 0, ...hyper }),
    space: { learningRate: logUniform(1e-5, 1e-2), beta1, beta2, eps: logUniform(1e-10, 1e-4) },
  },
  sonewTridiagonal: { label: "tridiagonal SONew", ...sonew() },
};
