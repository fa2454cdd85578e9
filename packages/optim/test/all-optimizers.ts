/**
 * Every optimizer class, once for each form of its state: a new one is one line, and goes through the suites over all of them.
 */
import {
  AdamW,
  addDecayedWeights,
  type CommonHyper,
  type CommonOptions,
  chain,
  matricesTo,
  type Optimizer,
  optimizerOf,
  type Parameter,
  Sonew,
  scale,
  scaleByAdam,
  trace,
} from "../src/index.js";

export type Options = Partial<CommonHyper> & CommonOptions<CommonHyper> & { [hyper: string]: unknown };
type Params<P extends Parameter> = Readonly<Record<string, P>>;
type Make = <P extends Parameter>(params: Params<P>, options?: Options) => Optimizer<P>;

interface Entry {
  name: string;
  make: Make;
  /** Hyper-parameters that are factors of averages: in [0, 1). */
  betas: readonly string[];
  /** Hyper-parameters that are at least 0. */
  notNegative: readonly string[];
}

const entry = (
  name: string,
  make: unknown,
  betas: readonly string[] = [],
  notNegative: readonly string[] = [],
): Entry => ({ name, make: make as Entry["make"], betas, notNegative });

/** Single optimizers, made for small problems. */
export const optimizers: readonly Entry[] = [
  entry("AdamW", (p: Params<Parameter>, o?: object) => new AdamW(p, o), ["beta1", "beta2"], ["eps", "weightDecay"]),
  entry(
    "AdamW with amsgrad",
    (p: Params<Parameter>, o?: object) => new AdamW(p, { amsgrad: true, ...o }),
    ["beta1", "beta2"],
    ["eps", "weightDecay"],
  ),
  entry(
    "Sonew",
    (p: Params<Parameter>, o?: object) => new Sonew(p, { eps: 1e-4, ...o }),
    ["beta1", "beta2"],
    ["eps", "weightDecay", "graftEps"],
  ),
  entry("optimizerOf, a transform for each parameter", (p: Params<Parameter>, o?: object) =>
    optimizerOf(p, ({ learningRate }) => chain(scaleByAdam(), scale(-learningRate)), { together: false, ...o }),
  ),
  entry("optimizerOf, one transform for all", (p: Params<Parameter>, o?: object) =>
    optimizerOf(
      p,
      ({ learningRate, weightDecay }) =>
        chain(trace({ decay: 0.9 }), addDecayedWeights(weightDecay), scale(-learningRate)),
      { ...o },
    ),
  ),
];

/** Two rules as one optimizer. */
export const routed: Make = ((p: Params<Parameter>, o?: object) =>
  matricesTo(p, (matrices, shapes) => new Sonew(matrices, { eps: 1e-4, shapes }), o)) as never;
