import type { Tensor } from "@llmeff/tensor";

/** Frees the parameters of a model that is no longer needed. */
export function disposeParams(params: Readonly<Record<string, Tensor>>): void {
  for (const tensor of Object.values(params)) tensor.dispose();
}
