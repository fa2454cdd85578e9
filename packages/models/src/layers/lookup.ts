import { ShapeError, type Tensor } from "@llmeff/tensor";
import type { Parameters } from "../parameters.js";

/** A parameter by the last part of its name. */
export type Lookup = (name: string) => Tensor;

/** The parameters whose names begin with a prefix. @throws {ShapeError} when asked for one that isn't there */
export function parametersAt(params: Parameters, prefix: string): Lookup {
  return (name) => {
    const full = `${prefix}.${name}`;
    const tensor = params[full];
    if (tensor === undefined) {
      throw new ShapeError(
        `[Transformer] the parameters lack "${full}". Are they of a model with another configuration?`,
      );
    }
    return tensor;
  };
}

/** Those of a part below. */
export function below(lookup: Lookup, part: string): Lookup {
  return (name) => lookup(`${part}.${name}`);
}
