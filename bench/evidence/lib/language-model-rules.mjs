/**
 * The optimizers that the study of a language model compares, as their users have them: embeddings, head and norms are stepped by AdamW with a rate
 * of its own, or by the rule itself where it is made for all. Every space has two settings, of which one is the rule's learning rate.
 */
import { AdamW, Muon, matricesTo, Shampoo, Sketchy, Soap, Sonew } from "@llmeff/optim";
import { logUniform, oneMinus } from "./search.mjs";

const common = { maxGradNorm: 1 };
const weightDecay = 0.1;
const learningRate = logUniform(5e-4, 2e-2);

/** One optimizer for all parameters. */
const ofAll = (label, Class, space, options) => ({
  label,
  space: { learningRate, ...space },
  make: (params, { learningRate, ...hyper }, schedule) =>
    new Class(params, {
      ...common,
      weightDecay,
      decay: "matrices",
      ...options,
      ...hyper,
      learningRate: schedule(learningRate),
    }),
});

/** One for the hidden matrices, AdamW for the rest. */
const ofMatrices = (label, Class, options, space = {}) => ({
  label,
  space: { learningRate, adamLearningRate: logUniform(1e-3, 2e-2), ...space },
  make: (params, { learningRate, adamLearningRate }, schedule) =>
    matricesTo(
      params,
      (matrices) => new Class(matrices, { weightDecay, ...options, learningRate: schedule(learningRate) }),
      { ...common, adamw: { learningRate: schedule(adamLearningRate), beta2: 0.95, weightDecay: 0 } },
    ),
});

/** Decompositions are renewed at every so many steps. */
const every = 20;
const tearfree = { momentum: 0.9, nesterov: false, ema: true, graftBeta2: 0.99, beta2: 0.95, mergeDims: 1 };

export const rules = {
  adamw: ofAll("AdamW", AdamW, { beta2: oneMinus(0.01, 0.1) }),
  muon: ofMatrices("Muon", Muon, {}, { learningRate: logUniform(2.5e-3, 1e-1) }),
  soap: ofMatrices("SOAP", Soap, { preconditionFrequency: every }),
  sonew: ofAll("tridiagonal SONew", Sonew, { eps: logUniform(1e-12, 1e-6) }, { beta2: 0.95 }),
  shampoo: ofMatrices("Shampoo", Shampoo, { ...tearfree, rootEvery: every, root: "coupledNewton" }),
  sketchy: ofMatrices("S-Shampoo, rank 64", Sketchy, { ...tearfree, updateEvery: every, rank: 64 }),
};
