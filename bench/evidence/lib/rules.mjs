/**
 * The optimizers that the study of an autoencoder compares: how each is made, from its settings and a schedule of its peak rate, and the space in
 * which its settings are searched: the learning rate over one and a half decades or two around what the rule needs on this problem, and the rule's own averages and
 * eps. `cost` is about that of a step by one of Adam's, on a GPU.
 */
import { Adagrad, Adam, Muon, matricesTo, RfdSon, RMSprop, SGD, Shampoo, Sketchy, Soap, Sonew } from "@llmeff/optim";
import { logUniform, oneMinus } from "./search.mjs";

const momentum = oneMinus(0.01, 0.3);
const beta1 = oneMinus(0.02, 0.2);
const beta2 = oneMinus(0.005, 0.1);
const eps = logUniform(1e-10, 1e-5);
const adamRate = logUniform(5e-4, 2e-2);

/** A rule of one class, which takes its settings as they are found; `derived(settings)`: those that follow from others. */
const rule = (label, Class, space, options = {}, cost = 1, derived = () => ({})) => ({
  label,
  cost,
  make: (params, { learningRate, ...hyper }, schedule) =>
    new Class(params, {
      ...{ weightDecay: 0, ...options, ...hyper, ...derived(hyper) },
      learningRate: schedule(learningRate),
    }),
  space,
});

const sonewSpace = { beta1, beta2, eps: logUniform(1e-8, 1e-4) };

/**
 * Without a graft, as its authors have it here: the step is Newton's, of size 1/|g|, and needs small rates. eps counts beside the squares of gradients, which
 * are 1e-6 to 1e-4.
 */
const sonew = (label, band, cost) =>
  rule(label, Sonew, { learningRate: logUniform(1e-5, 3e-4), ...sonewSpace }, { band, graft: "none" }, cost);

/** With the length of Adam's steps. */
const graftedSonew = (label, band, cost) =>
  rule(`${label}, Adam graft`, Sonew, { learningRate: logUniform(2e-3, 6e-2), ...sonewSpace }, { band }, cost);

/** What Shampoo's and Sketchy's have in common. */
const tearfree = { graft: "rmspropNorm", startStep: 25, mergeDims: 1, nesterov: false, ema: true };

/** Roots by products, which the networks of several seeds share. */
const shampoo = (label, options, derived) =>
  rule(
    label,
    Shampoo,
    { learningRate: adamRate, momentum: beta1, beta2, eps },
    { ...tearfree, ...options, rootEvery: 20, root: "coupledNewton", blockSize: 2048 },
    12,
    derived,
  );

/** Adam and diagonal SONew come out so close that who is ahead needs a longer second round, for all three. */
const close = (rule) => ({ ...rule, finalists: 6 });

const searched = {
  sgd: rule("SGD", SGD, { learningRate: logUniform(1e-3, 1e-1) }),
  momentum: rule("momentum", SGD, { learningRate: logUniform(3e-4, 3e-2), momentum }),
  nesterov: rule("Nesterov", SGD, { learningRate: logUniform(3e-4, 3e-2), momentum }, { nesterov: true }),
  adagrad: rule("Adagrad", Adagrad, { learningRate: logUniform(1e-3, 1e-1), eps }),
  rmsprop: rule("RMSprop", RMSprop, { learningRate: logUniform(1e-4, 1e-2), alpha: beta2, eps, momentum }),
  adam: close(rule("Adam", Adam, { learningRate: adamRate, beta1, beta2, eps })),
  sonew0: close(sonew("diagonal SONew", 0)),
  sonew1: sonew("tridiagonal SONew", 1),
  sonew4: sonew("band-4 SONew", 4),
  sonew10: sonew("band-10 SONew", 10, 1.2),
  sonew0Adam: close(graftedSonew("diagonal SONew", 0)),
  sonew1Adam: graftedSonew("tridiagonal SONew", 1),
  sonew4Adam: graftedSonew("band-4 SONew", 4),
  sonew10Adam: graftedSonew("band-10 SONew", 10, 1.2),
  rfdSon: rule(
    "rfdSON(1)",
    RfdSon,
    { learningRate: logUniform(0.1, 1000), beta1, alpha: logUniform(1e-3, 10) },
    { rank: 1 },
    15,
  ),
  // As SONew's authors ran it: the graft forgets as fast as the statistics, and biases have preconditioners, too.
  shampoo: shampoo("Shampoo(20)", { skipRank1: false }, ({ beta2 }) => ({ graftBeta2: beta2 })),
  shampooTearfree: shampoo("Shampoo(20), long graft, biases by the graft"),
  sketchy: rule(
    "S-Shampoo(20)",
    Sketchy,
    { learningRate: adamRate, momentum: beta1, beta2, eps },
    { ...tearfree, updateEvery: 20, rank: 128 },
    12,
  ),
  muon: {
    label: "Muon, AdamW for vectors",
    cost: 4,
    make: (params, { learningRate, momentum: factor, adamLearningRate }, schedule) =>
      matricesTo(params, (matrices) => new Muon(matrices, { learningRate: schedule(learningRate), momentum: factor }), {
        adamw: { learningRate: schedule(adamLearningRate), weightDecay: 0 },
        except: () => false,
      }),
    space: { learningRate: logUniform(1e-3, 1e-1), momentum: beta1, adamLearningRate: adamRate },
  },
  soap: rule(
    "SOAP(20)",
    Soap,
    { learningRate: logUniform(3e-4, 1e-2), beta1, beta2, eps },
    { preconditionFrequency: 20 },
    7,
  ),
};

/** A rule with settings that were found elsewhere, and aren't searched. */
const known = (as, label, setting) => ({ ...searched[as], label, as, setting });

/** Found by SONew's authors in a search of their own. */
const authorsShampoo = { learningRate: 3.70288e-3, momentum: 0.900055, beta2: 0.950822, eps: 9.66177e-9 };

export const rules = {
  ...searched,
  sonew1Known: known("sonew1", "tridiagonal SONew, authors' settings", {
    learningRate: 2.2602e-5,
    beta1: 0.954923,
    beta2: 0.979452,
    eps: 6.7597e-7,
    gamma: 1e-7,
  }),
  shampooKnown: known("shampoo", "Shampoo(20), authors' settings", authorsShampoo),
  sketchyKnown: known("sketchy", "S-Shampoo(20), settings of Shampoo's authors", authorsShampoo),
};
