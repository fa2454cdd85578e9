/**
 * The table of optimizers with those besides its classes: transforms as optimizers, and several rules as one.
 */
import {
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
import { everyOptimizer } from "./optimizer-table.js";

export type Options = Partial<CommonHyper> & CommonOptions<CommonHyper> & { [hyper: string]: unknown };
type Params<P extends Parameter> = Readonly<Record<string, P>>;

export interface Entry {
  name: string;
  make<P extends Parameter>(params: Params<P>, options?: Options): Optimizer<P>;
  /** Each with options outside their domain. */
  refused: readonly { readonly [option: string]: unknown }[];
}

const ofTransforms: readonly Entry[] = [
  {
    name: "optimizerOf, a transform for each parameter",
    make: (params, options) =>
      optimizerOf(params, ({ learningRate }) => chain(scaleByAdam(), scale(-learningRate)), {
        together: false,
        ...options,
      }),
    refused: [{ weightDecay: -1 }],
  },
  {
    name: "optimizerOf, one transform for all",
    make: (params, options) =>
      optimizerOf(
        params,
        ({ learningRate, weightDecay }) =>
          chain(trace({ decay: 0.9 }), addDecayedWeights(weightDecay), scale(-learningRate)),
        options,
      ),
    refused: [{ weightDecay: Number.NaN }],
  },
];

/** Single optimizers. */
export const optimizers: readonly Entry[] = [...everyOptimizer, ...ofTransforms];

/** Two rules as one optimizer. */
export const routed: Entry = {
  name: "route",
  make: (params, options) => matricesTo(params, (p, shapes) => new Sonew(p, { eps: 1e-4, shapes }), options),
  refused: [],
};
