/** The norms of a model: RMS or layer norm, alone or with the addition to the residual stream before it. */
import { addLayerNorm, addRmsNorm, layerNorm, type RmsNormOfInput, rmsNorm, type Tensor } from "@llmeff/tensor";
import type { ResolvedConfig } from "../config.js";
import type { Lookup } from "./lookup.js";

type NormConfig = Pick<ResolvedConfig, "norm" | "normEps" | "normPlusOne">;

/** The norm of a name. */
export function normed(config: NormConfig, parameter: Lookup, name: string, x: Tensor): Tensor {
  const { normEps: eps } = config;
  if (config.norm === "layer") return layerNorm(x, parameter(`${name}.weight`), parameter(`${name}.bias`), { eps });
  return headNormed(config, parameter, name, x);
}

/** The RMS norm of a name, which heads of queries and keys have whatever the other norms are. */
export function headNormed(config: NormConfig, parameter: Lookup, name: string, x: Tensor): Tensor {
  return rmsNorm(x, parameter(`${name}.weight`), { eps: config.normEps, plusOne: config.normPlusOne });
}

/** What goes along with the products of a sublayer: the norm before the first, and the stream that the last is added to. */
export interface Along {
  norm: RmsNormOfInput;
  residual: Tensor;
}

/** The RMS norm of a name, to be taken along. */
export function normAlong({ normEps: eps, normPlusOne: plusOne }: NormConfig, parameter: Lookup, name: string) {
  return { weight: parameter(`${name}.weight`), eps, plusOne };
}

/** The residual stream, and what is still to be added to it: the next norm does so in the same pass. */
export interface Stream {
  x: Tensor;
  addition: Tensor | undefined;
}

/** The stream with its addition, and its norm. */
export function streamNormed(
  config: NormConfig,
  parameter: Lookup,
  name: string,
  { x, addition }: Stream,
): { x: Tensor; normed: Tensor } {
  if (addition === undefined) return { x, normed: normed(config, parameter, name, x) };
  const { norm, normEps: eps, normPlusOne: plusOne } = config;
  const weight = parameter(`${name}.weight`);
  const [sum, y] =
    norm === "layer"
      ? addLayerNorm(x, addition, weight, parameter(`${name}.bias`), { eps })
      : addRmsNorm(x, addition, weight, { eps, plusOne });
  return { x: sum, normed: y };
}
