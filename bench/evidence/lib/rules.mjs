/**
 * The optimizers that the studies compare: how each is made, from its settings and a schedule of its peak rate, and the space in which its settings
 * are searched. Every space has the learning rate over three decades around what the rule's users begin with, and the rule's own averages and eps,
 * so that equal budgets are equal chances. `cost` is about that of a step by one of Adam's, on a GPU.
 */
import { Adagrad, Adam, Muon, matricesTo, RfdSon, RMSprop, SGD, Shampoo, Sketchy, Soap, Sonew } from "@llmeff/optim";
import { logUniform, oneMinus } from "./search.mjs";

const momentum = oneMinus(0.01, 0.3);
const beta1 = oneMinus(0.02, 0.3);
const beta2 = oneMinus(0.001, 0.1);
const eps = logUniform(1e-10, 1e-4);

/** A rule of one class, which takes its settings as they are found. */
const rule = (label, Class, space, options = {}, cost = 1) => ({
  label,
  cost,
  make: (params, { learningRate, ...hyper }, schedule) =>
    new Class(params, { weightDecay: 0, ...options, ...hyper, learningRate: schedule(learningRate) }),
  space,
});

const sonew = (label, band) =>
  rule(label, Sonew, { learningRate: logUniform(1e-4, 1e-1), beta1, beta2, eps }, { band });

const rates = { slow: logUniform(1e-5, 1e-2), middle: logUniform(1e-4, 1e-1), fast: logUniform(1e-3, 1) };

export const rules = {
  sgd: rule("SGD", SGD, { learningRate: rates.fast }),
  momentum: rule("momentum", SGD, { learningRate: rates.middle, momentum }),
  nesterov: rule("Nesterov", SGD, { learningRate: rates.middle, momentum }, { nesterov: true }),
  adagrad: rule("Adagrad", Adagrad, { learningRate: rates.middle, eps }),
  rmsprop: rule("RMSprop", RMSprop, { learningRate: rates.slow, alpha: beta2, eps, momentum }),
  adam: rule("Adam", Adam, { learningRate: rates.slow, beta1, beta2, eps }),
  sonew0: sonew("diagonal SONew", 0),
  sonew1: sonew("tridiagonal SONew", 1),
  sonew4: sonew("band-4 SONew", 4),
  sonew10: sonew("band-10 SONew", 10),
  rfdSon: rule("rfdSON(4)", RfdSon, { learningRate: rates.slow, beta1, alpha: logUniform(1e-3, 10) }, { rank: 4 }, 10),
  shampoo: rule(
    "Shampoo(20)",
    Shampoo,
    { learningRate: rates.middle, momentum: beta1, beta2, eps },
    {
      graft: "rmspropNorm",
      startStep: 25,
      rootEvery: 20,
      // Products alone: on a GPU a tenth of the time of eigendecompositions, and in float64 the same roots.
      root: "coupledNewton",
      blockSize: 2048,
      mergeDims: 1,
      nesterov: false,
      ema: true,
    },
    6,
  ),
  sketchy: rule(
    "S-Shampoo(20)",
    Sketchy,
    { learningRate: rates.middle, momentum: beta1, beta2, eps },
    { graft: "rmspropNorm", startStep: 25, updateEvery: 20, rank: 128, mergeDims: 1, nesterov: false, ema: true },
    20,
  ),
  muon: {
    label: "Muon, AdamW for vectors",
    cost: 2,
    make: (params, { learningRate, momentum: factor, adamLearningRate }, schedule) =>
      matricesTo(params, (matrices) => new Muon(matrices, { learningRate: schedule(learningRate), momentum: factor }), {
        adamw: { learningRate: schedule(adamLearningRate), weightDecay: 0 },
        except: () => false,
      }),
    space: { learningRate: rates.middle, momentum, adamLearningRate: rates.slow },
  },
  soap: rule("SOAP", Soap, { learningRate: rates.slow, beta1, beta2, eps }, { preconditionFrequency: 20 }, 10),
};
